/* cmd_report.c: `winnow-prune report`: a run directory as one HTML file that can be mailed, printed and read in ten years. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "prune/commands.h"
#include "prune/options.h"
#include "prune/report/report.h"

int cmd_report(int argc, char **argv)
{
	const char *dir = NULL, *out = NULL;
	char in_run[PATH_MAX], *page = NULL;
	size_t len = 0;
	energy_assumptions energy = ENERGY_DEFAULTS;
	const option_spec specs[] = {
		{"run", OPTION_STRING, &dir, "DIR", "run directory of train or compress, finished or not", .required = true},
		{"out", OPTION_STRING, &out, "FILE", "the page; default: report.html in the run directory"},
		{"rate", OPTION_DOUBLE, &energy.requests_per_s, "REQ_PER_S", "requests a second that the energy of a year is counted for",
		 .min = 1e-6, .max = 1e12},
		{"watts-per-core", OPTION_DOUBLE, &energy.watts_per_core, "W", "power of a busy core, where joules were not measured", .min = 0.01,
		 .max = 10000},
		{"co2", OPTION_DOUBLE, &energy.co2_g_per_kwh, "G_PER_KWH", "grams of CO2 a kWh of your electricity", .min = 0, .max = 10000},
		{0}};
	const command_info info = {"report", "a run as one HTML file: trade-offs, curves, classes, widths, energy",
	                           "winnow-prune report --run runs/student\n"
	                           "winnow-prune report --run runs/student --out report.html --rate 5000 --co2 380\n",
	                           specs};
	int parsed = options_parse(&info, argc, argv);
	if (parsed != OPTIONS_OK)
		return parsed == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	wn_error err = {0};
	run r = {0};
	wn_code rc = WN_OK;
	if (!out) {
		int n = snprintf(in_run, sizeof in_run, "%s/report.html", dir);
		if (n < 0 || n >= (int)sizeof in_run)
			rc = wn_fail(&err, WN_INVALID, "--run %.100s…: the path is too long", dir);
		out = in_run;
	}
	if (!rc)
		rc = run_open(&r, dir, &err);
	if (!rc)
		rc = report_make(&page, &len, &r, &energy, &err);
	if (!rc)
		rc = file_write_atomic(out, page, len, &err);
	if (!rc)
		printf("%s: %zu kB, %s run, %zu steps, %zu %s\n", out, (len + 999) / 1000, r.compression ? "compression" : "training", r.num_steps,
		       r.compression ? r.num_iterations : r.num_validations, r.compression ? "iterations" : "validations");
	free(page);
	run_close(&r);
	return rc ? command_fail(&info, &err) : EXIT_DONE;
}
