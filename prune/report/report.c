/* report.c: see report.h. Which sections, in which order. */
#include "prune/report/report.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/html.h"
#include "prune/report/sections.h"

static wn_code compression(FILE *f, const run *r, const energy_assumptions *energy, wn_error *err)
{
	const comparison c = run_compare(r);
	section_summary(f, r, &c, energy);
	section_tradeoff(f, r);
	wn_code rc = section_losses(f, r, err);
	if (!rc && r->num_validations)
		rc = section_validation(f, r, err);
	section_classes(f, &c);
	section_widths(f, r);
	section_calibration(f, r, &c);
	section_ablation(f, r);
	section_energy(f, &c, energy);
	return rc;
}

static wn_code training(FILE *f, const run *r, wn_error *err)
{
	section_training(f, r);
	wn_code rc = section_validation(f, r, err);
	return rc ? rc : section_losses(f, r, err);
}

static void title_of(char *out, size_t size, const run *r)
{
	char path[1024];
	snprintf(path, sizeof path, "%s", r->dir);
	snprintf(out, size, "%s run %s", r->compression ? "Compression" : "Training", basename(path));
}

wn_code report_make(char **out, size_t *len, const run *r, const energy_assumptions *energy, wn_error *err)
{
	char title[1100];
	*out = NULL;
	FILE *f = open_memstream(out, len);
	if (!f)
		return wn_fail(err, WN_NOMEM, "no memory for the report: %s", strerror(errno));
	title_of(title, sizeof title, r);
	html_page_open(f, title);
	html_note(f, "Written by winnow-prune report from %.500s.", r->dir);
	wn_code rc = r->compression ? compression(f, r, energy, err) : training(f, r, err);
	section_origin(f, r);
	html_page_close(f);
	const bool bad = ferror(f);
	if ((fclose(f) || bad) && !rc)
		rc = wn_fail(err, WN_NOMEM, "no memory for the report");
	if (rc) {
		free(*out);
		*out = NULL;
	}
	return rc;
}
