/* compress_plan.c: see compress_plan.h. */
#include "prune/compress/compress_plan.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json_text.h"
#include "prune/compress/compress_log.h"
#include "prune/compress/distiller.h"
#include "prune/run_dir.h"

#define MAX_PLAN_BYTES ((size_t)16 << 20)

/* ---- making it ---- */

static plan_limits limits_of(const compress_config *c, const blip2_config *full)
{
	plan_limits l = plan_limits_default(full);
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		l.min_blocks[i] = c->limits.min_blocks[i];
		if (c->limits.min_hidden[i])
			l.min_hidden[i] = c->limits.min_hidden[i];
		if (c->limits.min_ffn[i])
			l.min_ffn[i] = c->limits.min_ffn[i];
		if (c->limits.min_inner[i])
			l.min_inner[i] = c->limits.min_inner[i];
	}
	l.min_queries = c->limits.min_queries;
	l.uniform_heads = c->limits.uniform_heads;
	return l;
}

static wn_code plan_target(compress_plan *p, const workspace *w, cost_model *cost, wn_error *err)
{
	const compress_config *c = w->config;
	blip2 *m = w->teacher.model; /* scoring reads it only */
	distiller *d = NULL;
	structure_scores scores = {0};
	fprintf(w->out, "scoring the teacher for the plan\n");
	wn_code rc = structure_scores_open(&scores, blip2_get_config(m), err);
	if (!rc)
		rc = distiller_open_scores(&d, w, m, (importance_method)c->importance, err);
	if (!rc)
		rc = distiller_score(d, c->importance_batches, &scores, err);
	const plan_options o = {.kind = (target_kind)(c->target_kind - 1), .target = c->target, .tolerance = c->target_tolerance,
				.limits = limits_of(c, blip2_get_config(m)), .block_choice = (block_choice)c->block_choice,
				.out = w->out};
	if (!rc)
		rc = plan_shape(&p->final, blip2_get_config(m), &scores, cost, &o, err);
	distiller_close(&d);
	structure_scores_close(&scores);
	return rc;
}

static void append_finish(compress_plan *p, const compress_config *c)
{
	int64_t steps = c->finish_steps;
	if (c->start == START_SCRATCH) /* all of the steps that pruning would have had */
		for (int i = 0; i < p->count; i++)
			steps += p->iterations[i].steps;
	if (c->start == START_SCRATCH)
		p->count = 0;
	if (steps)
		p->iterations[p->count++] = (iteration){.stage = PLAN_FINISH, .shape = p->final.shape, .steps = steps};
}

static wn_code make(compress_plan *p, const workspace *w, cost_model *cost, wn_error *err)
{
	const compress_config *c = w->config;
	const blip2_config *full = blip2_get_config(w->teacher.model);
	p->num_stages = compress_config_stages(c, p->stages);
	wn_code rc = c->target_kind ? plan_target(p, w, cost, err) : compress_config_shape(c, full, &p->final.shape, err);
	if (!rc && (c->start == START_PRUNED || p->num_stages > 0)) /* from scratch, the stages only say how many steps there are */
		rc = stages_path(p->iterations, &p->count, full, &p->final.shape, p->stages, p->num_stages, c->width_multiple, err);
	if (rc)
		return rc;
	if (c->start == START_PRUNED && p->count == 0)
		return wn_fail(err, WN_INVALID, "the student's shape is the teacher's: nothing to prune (set target or final)");
	append_finish(p, c);
	if (p->count == 0)
		return wn_fail(err, WN_INVALID, "distill.finish_steps: found 0, and no steps in the stages: nothing to learn from scratch in");
	p->final.parameters = cost_parameters(&p->final.shape);
	p->final.flops = cost_flops(cost, &p->final.shape);
	if (c->latency_runs) {
		if (p->final.measured_ms <= 0)
			rc = cost_measure(cost, &p->final.shape, c->latency_runs, &p->final.measured_ms, err);
		if (!rc)
			rc = cost_measure(cost, full, c->latency_runs, &p->teacher_ms, err);
	}
	return rc;
}

/* ---- on disk ---- */

void compress_plan_name(const compress_plan *p, int index, char *buf, size_t size)
{
	char what[96] = "finish";
	if (p->iterations[index].stage != PLAN_FINISH)
		stage_name(&p->stages[p->iterations[index].stage], true, what, sizeof what);
	snprintf(buf, size, "%03d-%s", index + 1, what);
}

wn_code compress_plan_path(const compress_plan *p, const workspace *w, int index, const char *suffix, char *buf, wn_error *err)
{
	char name[128], below[192];
	compress_plan_name(p, index, name, sizeof name);
	snprintf(below, sizeof below, "iterations/%s%s", name, suffix);
	return run_dir_path(w->config->run_dir, below, buf, err);
}

static json_t *milliseconds(double ms) { return ms > 0 ? json_number(ms) : json_null(); }

static json_t *iterations_json(const compress_plan *p, cost_model *cost)
{
	json_t *all = json_array();
	for (int i = 0; all && i < p->count; i++) {
		const iteration *it = &p->iterations[i];
		char name[128];
		compress_plan_name(p, i, name, sizeof name);
		json_array_append_new(all, json_pack("{s:s, s:i, s:I, s:f, s:f, s:o}", "name", name, "stage", it->stage, "steps",
						     (json_int_t)it->steps, "parameters",
						     cost_parameters(&it->shape), "flops", cost_flops(cost, &it->shape), "widths",
						     shape_json(&it->shape)));
	}
	return all;
}

wn_code compress_plan_save(const compress_plan *p, const workspace *w, cost_model *cost, wn_error *err)
{
	const compress_config *c = w->config;
	const blip2_config *full = blip2_get_config(w->teacher.model);
	char path[PATH_MAX];
	wn_code rc = run_dir_path(c->run_dir, "plan.json", path, err);
	if (rc || p->read)
		return rc;
	json_t *target = c->target_kind ? json_pack("{s:s, s:f}", "kind", TARGET_NAMES[c->target_kind - 1], "value", c->target) : json_null();
	json_t *j = json_pack("{s:i, s:{s:f, s:f, s:o, s:o}, s:o, s:{s:f, s:f, s:o, s:o, s:o}, s:o}", "format", 1, "teacher", "parameters",
			      cost_parameters(full), "flops", cost_flops(cost, full), "latency_ms", milliseconds(p->teacher_ms),
			      "widths", shape_json(full), "target", target, "final", "parameters", p->final.parameters, "flops",
			      p->final.flops, "predicted_ms", milliseconds(p->final.predicted_ms), "measured_ms",
			      milliseconds(p->final.measured_ms), "widths", shape_json(&p->final.shape), "iterations",
			      iterations_json(p, cost));
	char *text = j ? json_write(j, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) : NULL;
	rc = text ? file_write_atomic(path, text, strlen(text), err) : wn_fail(err, WN_NOMEM, "%s: no memory", path);
	free(text);
	json_decref(j);
	return rc;
}

static double number_at(const json_t *j, const char *key) { return json_number_value(json_object_get(j, key)); }

static wn_code parse(compress_plan *p, const json_t *j, const workspace *w, wn_error *err)
{
	const blip2_config *full = blip2_get_config(w->teacher.model);
	const json_t *final = json_object_get(j, "final"), *all = json_object_get(j, "iterations");
	if (json_integer_value(json_object_get(j, "format")) != 1)
		return wn_fail(err, WN_UNSUPPORTED, "format: expected 1");
	if (json_array_size(all) < 1 || json_array_size(all) > MAX_ITERATIONS + 1)
		return wn_fail(err, WN_INVALID, "iterations: found %zu, expected 1 to %d", json_array_size(all), MAX_ITERATIONS + 1);
	p->num_stages = compress_config_stages(w->config, p->stages);
	p->teacher_ms = number_at(json_object_get(j, "teacher"), "latency_ms");
	p->final.parameters = number_at(final, "parameters");
	p->final.flops = number_at(final, "flops");
	p->final.predicted_ms = number_at(final, "predicted_ms");
	p->final.measured_ms = number_at(final, "measured_ms");
	wn_code rc = shape_parse(&p->final.shape, json_object_get(final, "widths"), full, err);
	for (size_t i = 0; !rc && i < json_array_size(all); i++) {
		const json_t *one = json_array_get(all, i);
		iteration *it = &p->iterations[p->count++];
		it->stage = (int)json_integer_value(json_object_get(one, "stage"));
		it->steps = json_integer_value(json_object_get(one, "steps"));
		if (it->stage < PLAN_FINISH || it->stage >= p->num_stages || it->steps < 0)
			return wn_fail(err, WN_INVALID, "iterations[%zu]: stage %d with %lld steps is not of this configuration", i, it->stage,
				       (long long)it->steps);
		if (it->stage == PLAN_FINISH && i == 0 && w->config->start == START_PRUNED)
			return wn_fail(err, WN_INVALID, "iterations[0]: found the finish, expected a stage before it");
		rc = shape_parse(&it->shape, json_object_get(one, "widths"), full, err);
	}
	return rc;
}

static wn_code read_plan(compress_plan *p, const char *path, const workspace *w, wn_error *err)
{
	char *text = NULL;
	size_t len = 0;
	wn_code rc = file_read(path, MAX_PLAN_BYTES, &text, &len, err);
	if (rc)
		return rc;
	json_error_t je;
	json_t *j = json_read(text, len, JSON_REJECT_DUPLICATES, &je);
	free(text);
	rc = j ? parse(p, j, w, err) : wn_fail(err, json_read_code(&je), "%s", je.text);
	json_decref(j);
	return rc ? wn_fail_prefix(err, "%s", path) : WN_OK;
}

wn_code compress_plan_make(compress_plan *out, const workspace *w, bool resume, cost_model *cost, wn_error *err)
{
	char path[PATH_MAX];
	memset(out, 0, sizeof *out);
	wn_code rc = run_dir_path(w->config->run_dir, "plan.json", path, err);
	if (rc)
		return rc;
	out->read = resume && access(path, F_OK) == 0;
	return out->read ? read_plan(out, path, w, err) : make(out, w, cost, err);
}
