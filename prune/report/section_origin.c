/* section_origin.c: what was run: a training's one-glance table, and the inputs of any run, so that it can be run again. */
#include "prune/report/sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "prune/report/run_parse.h"

#define MAX_DEPTH 8
#define MAX_CELL  400 /* bytes */

/* A text as it is, other values as JSON; cut between two characters to what a cell shows. */
static void value_cell(FILE *f, const json_t *v)
{
	char *json = json_is_string(v) ? NULL : json_write(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)), shown[MAX_CELL + sizeof "…"];
	const char *text = json_is_string(v) ? json_string_value(v) : json ? json : "…";
	size_t len = strnlen(text, MAX_CELL);
	const bool cut = text[len];
	while (cut && len && ((unsigned char)text[len] & 0xC0) == 0x80)
		len--;
	memcpy(shown, text, len);
	strcpy(shown + len, cut ? "…" : "");
	html_cell(f, shown);
	free(json);
}

/* One row a leaf: "data.train.samples". */
static void leaves(FILE *f, const char *prefix, const json_t *j, int depth)
{
	char name[256];
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)j, key, v) {
		if (snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", key) >= (int)sizeof name)
			strcpy(name + sizeof name - sizeof "…", "…");
		if (json_is_object(v) && depth < MAX_DEPTH) {
			leaves(f, name, v, depth + 1);
			continue;
		}
		html_row_open(f, name);
		value_cell(f, v);
		html_row_close(f);
	}
}

/* What the last resume changed against the configuration below. */
static void changes(FILE *f, const json_t *changed)
{
	static const char *const headers[] = {"setting", "|at the beginning", "|since it was last resumed", NULL};
	const char *key;
	json_t *pair;
	if (!json_object_size(changed))
		return;
	html_table_open(f, headers);
	json_object_foreach((json_t *)(uintptr_t)changed, key, pair) {
		html_row_open(f, key);
		value_cell(f, json_array_get(pair, 0));
		value_cell(f, json_array_get(pair, 1));
		html_row_close(f);
	}
	html_table_close(f);
}

void section_origin(FILE *f, const run *r)
{
	static const char *const headers[] = {"input", "|", NULL};
	html_section_open(f, "origin", "Where it comes from");
	html_note(f, "Run by winnow %.40s.", r->winnow ? r->winnow : "(version not stated)");
	if (r->identity) {
		html_table_open(f, headers);
		leaves(f, "", r->identity, 0);
		html_table_close(f);
	} else {
		html_note(f, "manifest.json does not say what its inputs were.");
	}
	changes(f, r->changed);
	if (r->config) {
		fputs("<details><summary>The whole configuration</summary><pre>", f);
		html_text(f, r->config);
		fputs("</pre></details>\n", f);
	}
	html_section_close(f);
}

/* ---- a training ---- */

static void metric_card(FILE *f, const char *name, double share, const run_validation *v)
{
	if (!isnan(share))
		html_card(f, text_share(share).s, "%s at step %s", name, text_fixed((double)v->step, 0).s);
}

void section_training(FILE *f, const run *r)
{
	const run_validation *shown = NULL;
	/* the best of the last phase: phases measure different things */
	for (size_t i = 0; i < r->num_validations; i++) {
		const run_validation *v = &r->validations[i];
		const bool same_phase = shown && !strcmp(v->phase, shown->phase);
		if (!shown || !same_phase || v->best)
			shown = v;
	}
	html_section_open(f, "summary", "Summary");
	if (r->cut_line)
		html_note(f, "The log ends in the middle of a line (the run was killed there, or still writes); that line is left out.");
	html_cards_open(f);
	const double parameters = run_number(r->identity, "parameters");
	if (!isnan(parameters))
		html_card(f, text_si(parameters, "").s, "parameters");
	if (r->num_steps)
		html_card(f, text_fixed((double)r->steps[r->num_steps - 1].step, 0).s, "steps done");
	if (shown) {
		metric_card(f, "accuracy", shown->accuracy, shown);
		metric_card(f, "macro-F1", shown->macro_f1, shown);
		metric_card(f, "token accuracy", shown->token_accuracy, shown);
		metric_card(f, "first-token accuracy", shown->first_token_accuracy, shown);
		if (!isnan(shown->ece))
			html_card(f, text_fixed(shown->ece, 3).s, "calibration error (ECE)");
	}
	html_cards_close(f);
	if (shown)
		html_note(f, "Quality: the best validation of the last phase%s%.60s, %s samples.", *shown->phase ? ", " : "", shown->phase,
		          text_fixed(shown->samples, 0).s);
	html_section_close(f);
}
