/* energy.c: see energy.h. */
#include "prune/report/energy.h"

#include <math.h>

#define SECONDS_A_YEAR 31536000.0 /* 365 days */
#define JOULES_A_KWH   3.6e6

energy_use energy_of(double cpu_seconds, double measured_joules, const energy_assumptions *a)
{
	energy_use u;
	u.joules = isnan(measured_joules) ? cpu_seconds * a->watts_per_core : measured_joules;
	u.busy_cores = cpu_seconds * a->requests_per_s;
	u.kwh_year = u.joules * a->requests_per_s * SECONDS_A_YEAR / JOULES_A_KWH;
	u.co2_kg_year = u.kwh_year * a->co2_g_per_kwh / 1000;
	return u;
}
