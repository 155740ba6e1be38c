/* energy.h: what a request costs in joules, and a year of requests in kWh and CO2.
 *
 * Measured where the machine lets one: RAPL counters of Linux (/sys/class/powercap, intel-rapl on Intel and AMD alike),
 * packages and memory, read around the work. They count everything that ran meanwhile, and are readable for root
 * only since CVE-2020-8694. Else estimated: CPU-seconds of a request times stated watts a core. */
#ifndef WINNOW_PRUNE_REPORT_ENERGY_H
#define WINNOW_PRUNE_REPORT_ENERGY_H

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

/* ---- estimating ---- */

typedef struct energy_assumptions {
	double requests_per_s;
	double watts_per_core; /* of a busy core */
	double co2_g_per_kwh;
} energy_assumptions;

#define ENERGY_DEFAULTS ((energy_assumptions){.requests_per_s = 1000, .watts_per_core = 6, .co2_g_per_kwh = 450})

typedef struct energy_use {
	double joules;     /* a request */
	double busy_cores; /* at the rate; NaN when CPU-seconds are not known */
	double kwh_year, co2_kg_year;
} energy_use;

/* measured_joules: of a request, or NaN: cpu_seconds * watts_per_core. NaN in, NaN out. */
energy_use energy_of(double cpu_seconds, double measured_joules, const energy_assumptions *a);

#endif
