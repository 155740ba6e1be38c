/* energy.h: what a request costs in joules, and a year of requests in kWh and CO2: from joules the run measured
 * (base/energy_meter.h), else from the CPU-seconds of a request times stated watts a core. */
#ifndef WINNOW_PRUNE_REPORT_ENERGY_H
#define WINNOW_PRUNE_REPORT_ENERGY_H

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
