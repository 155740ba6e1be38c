/* energy_meter.h: the joules a machine uses, where it lets one look: RAPL counters of Linux (/sys/class/powercap, intel-rapl on
 * Intel and AMD alike), packages and memory, read around the work. They count everything that ran meanwhile, and are readable
 * for root only since CVE-2020-8694. */
#ifndef WINNOW_BASE_ENERGY_METER_H
#define WINNOW_BASE_ENERGY_METER_H

#include <stdbool.h>
#include <stdint.h>

#define ENERGY_MAX_DOMAINS 32

/* ---- measuring ---- */

typedef struct energy_domain {
	char dir[256];     /* of energy_uj */
	uint64_t range_uj; /* the counter starts again at 0 behind it */
	uint64_t last_uj;
} energy_domain;

typedef struct energy_meter {
	energy_domain domains[ENERGY_MAX_DOMAINS];
	int count;
	double joules;
} energy_meter;

/* Starts counting: all "package-N" and "dram" domains under root (NULL: /sys/class/powercap; a test has its own). False when
 * there is none or one cannot be read (a sum without a package would look thrifty). No resources are held. */
bool energy_meter_open(energy_meter *m, const char *root);
/* *joules since open. Call it at least once a minute: a counter that went round twice shows once. False: cannot be read any more. */
bool energy_meter_read(energy_meter *m, double *joules);

#endif
