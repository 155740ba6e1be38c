/* compressor.c: see compressor.h. */
#include "prune/compress/compressor.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "prune/compress/compress_log.h"
#include "prune/compress/distiller.h"
#include "prune/compress/request_use.h"
#include "prune/compress/slice.h"
#include "prune/progress.h"
#include "prune/run_dir.h"
#include "prune/schedule.h"
#include "prune/train_log.h"
#include "prune/train_state.h"

#define MAX_SKIPPED_IN_A_ROW 25
#define SMOOTHING            0.95

typedef struct compressor {
	workspace *w;
	const compress_plan *plan;
	cost_model *cost;
	const compressor_options *opt;
	teacher *teacher;
	bool teacher_hidden;
	train_log log;
	train_position at; /* phase: the iteration, phase_step: its step */
	progress progress;
	metrics *metrics;  /* scratch of evaluations */
	/* of the iteration at work */
	const iteration *it;
	char name[128];
	blip2 *student;
	teacher_map map;
	distiller *distiller;
	schedule schedule;
	json_t *pruning;   /* what pruning.json will say; NULL when nothing was sliced */
	json_t *score_lost;
	double started;
} compressor;

static bool stopped(const compressor *c) { return c->w->stop && *c->w->stop; }
static bool finishing(const compressor *c) { return c->it->stage < 0; }

static wn_code run_path(const compressor *c, const char *name, char *buf, wn_error *err)
{
	return run_dir_path(c->w->config->run_dir, name, buf, err);
}

static wn_code iteration_path(const compressor *c, int index, char *buf, wn_error *err)
{
	char name[128], below[160];
	compress_plan_name(c->plan, index, name, sizeof name);
	snprintf(below, sizeof below, "iterations/%s", name);
	return run_path(c, below, buf, err);
}

/* ---- measuring ---- */

/* A model on a split, as E of compress_log.h; JSON null for a split that is not configured. */
static wn_code evaluate(compressor *c, const split_data *s, const blip2 *m, json_t **out, wn_error *err)
{
	*out = json_null();
	if (!s->used)
		return WN_OK;
	const double start = monotonic_seconds();
	wn_code rc = workspace_evaluate(c->w, s, m, c->metrics, err);
	progress_exclude(&c->progress, monotonic_seconds() - start);
	if (!rc && !(*out = eval_json(c->metrics, s->name, &c->w->manifest)))
		rc = wn_fail(err, WN_NOMEM, "no memory for metrics");
	return rc;
}

static wn_code measure(compressor *c, const blip2_config *shape, json_t **out, wn_error *err)
{
	double ms;
	*out = json_null();
	if (!c->w->config->latency_runs)
		return WN_OK;
	wn_code rc = cost_measure(c->cost, shape, c->w->config->latency_runs, &ms, err);
	if (!rc)
		*out = json_number(ms);
	return rc;
}

static double value_of(const json_t *eval, const char *key) { return json_number_value(json_object_get(eval, key)); }

/* ---- saving ---- */

static wn_code save_state(compressor *c, wn_error *err)
{
	wn_code rc = train_log_sync(&c->log, &c->at.log_bytes, err);
	return rc ? rc : train_state_save(c->w->config->run_dir, &c->at, blip2_weights(c->student), distiller_adamw(c->distiller), err);
}

static wn_code save_model(const compressor *c, const char *dir, const blip2 *m, dtype d, const json_t *eval, wn_error *err)
{
	manifest man = c->w->manifest;
	json_t *copy = eval ? json_deep_copy(eval) : json_null();
	man.lineage = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:o}", "stage", "compress", "program", "winnow " WINNOW_VERSION,
				"teacher", c->w->teacher.digest, "iteration", c->name, "step", (json_int_t)c->at.step, "seed",
				(json_int_t)c->w->config->seed, "run", c->w->identity, "validation", copy);
	wn_code rc = man.lineage ? checkpoint_save(dir, m, &man, &c->w->teacher.image_processor, c->w->tokenizer_path, d, err)
				 : wn_fail(err, WN_NOMEM, "no memory for the lineage");
	json_decref(man.lineage);
	return rc;
}

static wn_code write_json(const char *path, const json_t *j, wn_error *err)
{
	char *text = json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(7));
	wn_code rc = text ? file_write_atomic(path, text, strlen(text), err) : wn_fail(err, WN_NOMEM, "%s: no memory", path);
	free(text);
	return rc;
}

/* ---- the next shape ---- */

/* The model that iteration `index` starts from, and where its structures stand in the teacher. */
static wn_code load_source(compressor *c, int index, checkpoint *ck, wn_error *err)
{
	const blip2_config *full = blip2_get_config(c->w->teacher.model);
	const checkpoint_options o = {.skip_digest = true};
	char dir[PATH_MAX], path[PATH_MAX + 32], *text = NULL;
	size_t len = 0;
	if (index == 0)
		return teacher_map_identity(&c->map, full, err);
	wn_code rc = iteration_path(c, index - 1, dir, err);
	if (!rc)
		rc = checkpoint_load(ck, dir, &o, err);
	snprintf(path, sizeof path, "%s.pruning.json", dir);
	if (!rc)
		rc = file_read(path, (size_t)1 << 30, &text, &len, err);
	if (rc)
		return rc;
	json_error_t je;
	json_t *j = json_loadb(text, len, 0, &je);
	free(text);
	rc = j ? teacher_map_parse(&c->map, json_object_get(j, "teacher_map"), full, blip2_get_config(ck->model), err)
	       : wn_fail(err, WN_INVALID, "%s", je.text);
	json_decref(j);
	return rc ? wn_fail_prefix(err, "%s", path) : WN_OK;
}

static wn_code score(compressor *c, blip2 *m, structure_scores *s, wn_error *err)
{
	const compress_config *cc = c->w->config;
	distiller *d = NULL;
	wn_code rc = structure_scores_open(s, blip2_get_config(m), err);
	if (!rc)
		rc = distiller_open(&d, c->w, NULL, m, NULL, 0, err);
	if (!rc)
		rc = distiller_score(d, (importance_method)cc->importance, cc->importance_batches, s, err);
	distiller_close(&d);
	return rc;
}

/* Scores `source`, slices it to the iteration's shape and notes what was kept. */
static wn_code slice(compressor *c, blip2 *source, wn_error *err)
{
	structure_scores s = {0};
	keep k = {0};
	wn_code rc = score(c, source, &s, err);
	if (!rc)
		rc = keep_choose(&k, &s, &c->it->shape, (block_choice)c->w->config->block_choice, err);
	if (!rc)
		rc = slice_model(&c->student, source, &k, err);
	if (!rc) {
		teacher_map_apply(&c->map, &k);
		c->score_lost = json_pack("{s:o, s:o, s:o}", "vision", json_number(keep_score_lost(&k, &s, COMPONENT_VISION)), "qformer",
					  json_number(keep_score_lost(&k, &s, COMPONENT_QFORMER)), "text",
					  json_number(keep_score_lost(&k, &s, COMPONENT_TEXT)));
		c->pruning = json_pack("{s:s, s:o, s:o, s:o}", "importance", IMPORTANCE_NAMES[c->w->config->importance], "scores",
				       structure_scores_json(&s), "keep", keep_json(&k), "teacher_map", teacher_map_json(&c->map));
		if (!c->pruning || !c->score_lost)
			rc = wn_fail(err, WN_NOMEM, "no memory for pruning.json");
	}
	keep_close(&k);
	structure_scores_close(&s);
	return rc;
}

static wn_code random_student(compressor *c, wn_error *err)
{
	wn_code rc = blip2_create(&c->student, &c->it->shape, err);
	if (!rc)
		blip2_init_weights(c->student, (uint64_t)c->w->config->seed);
	return rc;
}

/* The student as the iteration begins: sliced, or (finishing) the last iteration's as it is. */
static wn_code open_student(compressor *c, wn_error *err)
{
	const bool scratch = c->w->config->start == START_SCRATCH;
	checkpoint ck = {0};
	if (scratch)
		return random_student(c, err);
	wn_code rc = load_source(c, c->at.phase, &ck, err);
	if (!rc && finishing(c)) {
		c->student = ck.model;
		ck.model = NULL;
		c->pruning = json_pack("{s:o}", "teacher_map", teacher_map_json(&c->map));
	} else if (!rc) {
		rc = slice(c, ck.model ? ck.model : c->w->teacher.model, err);
	}
	checkpoint_close(&ck);
	return rc;
}

static void close_iteration(compressor *c)
{
	distiller_close(&c->distiller);
	blip2_close(&c->student);
	teacher_map_close(&c->map);
	json_decref(c->pruning);
	json_decref(c->score_lost);
	c->pruning = c->score_lost = NULL;
}

/* The teacher, with hidden states or without: without them its answers fit a cache that a large transfer set fills. */
static wn_code need_teacher(compressor *c, bool hidden, wn_error *err)
{
	if (c->teacher && c->teacher_hidden == hidden)
		return WN_OK;
	teacher_close(&c->teacher);
	c->teacher_hidden = hidden;
	return workspace_open_teacher(c->w, hidden, &c->teacher, err);
}

static wn_code open_iteration(compressor *c, wn_error *err)
{
	const compress_config *cc = c->w->config;
	c->it = &c->plan->iterations[c->at.phase];
	c->started = monotonic_seconds();
	compress_plan_name(c->plan, c->at.phase, c->name, sizeof c->name);
	const double hidden = cc->start == START_SCRATCH ? 0 : finishing(c) ? cc->finish_hidden : cc->loss.hidden;
	wn_code rc = need_teacher(c, hidden > 0, err);
	if (!rc)
		rc = open_student(c, err);
	if (!rc)
		rc = distiller_open(&c->distiller, c->w, c->teacher, c->student, &c->map, hidden, err);
	c->schedule = finishing(c) ? (schedule){.peak_lr = cc->finish_learning_rate, .min_lr = 0}
				   : (schedule){.peak_lr = cc->learning_rate, .min_lr = cc->min_learning_rate};
	c->schedule.warmup_steps = cc->warmup_steps < c->it->steps ? cc->warmup_steps : c->it->steps;
	c->schedule.total_steps = c->it->steps;
	return rc;
}

/* ---- distilling ---- */

static wn_code log_step(compressor *c, const distill_result *r, double lr, double seconds, wn_error *err)
{
	const distill_terms *t = &r->terms;
	json_t *row = json_pack("{s:s, s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:f, s:f, s:o, s:f, s:b}", "event", "step", "iteration",
				c->at.phase + 1, "step", (json_int_t)c->at.step, "iteration_step", (json_int_t)c->at.phase_step, "loss",
				json_number(t->total), "nll", json_number(t->nll), "kl", json_number(t->kl), "pair", json_number(t->pair),
				"relation", json_number(t->relation), "hidden", json_number(t->hidden), "accuracy",
				t->samples ? (double)t->correct / (double)t->samples : 0, "lr", lr, "grad_norm", json_number(r->grad_norm),
				"samples_per_s", c->w->config->batch_size / seconds, "skipped", (int)r->skipped);
	return train_log_write(&c->log, row, err);
}

static void show_step(compressor *c, const distill_result *r, double lr, bool last)
{
	char details[160];
	const double elapsed = monotonic_seconds() - c->progress.started - c->progress.paused;
	const double rate = (double)(c->at.phase_step - c->progress.first) * c->w->config->batch_size / (elapsed > 0 ? elapsed : 1);
	snprintf(details, sizeof details, "loss %.4f  answers %.1f%%  lr %.2e  %.0f samples/s%s", c->at.smooth_loss,
		 r->terms.samples ? 100.0 * (double)r->terms.correct / (double)r->terms.samples : 0, lr, rate, r->skipped ? "  SKIPPED" : "");
	if (last)
		progress_finish(&c->progress, c->at.phase_step, details);
	else
		progress_update(&c->progress, c->at.phase_step, details);
}

static wn_code distil_step(compressor *c, distill_result *r, double *lr, wn_error *err)
{
	const double start = monotonic_seconds();
	*lr = schedule_lr(&c->schedule, c->at.phase_step);
	wn_code rc = distiller_step(c->distiller, c->at.step, *lr, r, err);
	if (rc)
		return rc;
	if (!r->skipped)
		c->at.smooth_loss = c->at.phase_step ? SMOOTHING * c->at.smooth_loss + (1 - SMOOTHING) * r->terms.total : r->terms.total;
	c->at.skipped_in_a_row = r->skipped ? c->at.skipped_in_a_row + 1 : 0;
	c->at.phase_step++;
	c->at.step++;
	if (c->at.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW)
		return wn_fail(err, WN_INVALID, "%s step %lld: loss or gradient was not finite %d times in a row: lower distill.learning_rate",
			       c->name, (long long)c->at.phase_step, MAX_SKIPPED_IN_A_ROW);
	return log_step(c, r, *lr, monotonic_seconds() - start, err);
}

/* The student on validation; RUN/best keeps the best one of this iteration. *out is the caller's (or NULL). */
static wn_code validate(compressor *c, json_t **out, wn_error *err)
{
	json_t *eval;
	char dir[PATH_MAX];
	wn_code rc = evaluate(c, &c->w->validation, c->student, &eval, err);
	const double accuracy = value_of(eval, "accuracy"), nll = value_of(eval, "nll");
	const bool best = !rc && (!c->at.has_best || accuracy > c->at.best_metric || (accuracy == c->at.best_metric && nll < c->at.best_loss));
	if (best) {
		c->at.has_best = true;
		c->at.best_metric = accuracy;
		c->at.best_loss = nll;
		c->at.best_step = c->at.step;
		if (!(rc = run_path(c, "best", dir, err)))
			rc = save_model(c, dir, c->student, DTYPE_F32, eval, err);
	}
	if (!rc)
		rc = train_log_write(&c->log, json_pack("{s:s, s:i, s:I, s:I, s:b, s:O}", "event", "eval", "iteration", c->at.phase + 1, "step",
							(json_int_t)c->at.step, "iteration_step", (json_int_t)c->at.phase_step, "best",
							(int)best, "eval", eval), err);
	if (!rc && c->w->validation.used)
		progress_note(&c->progress, "  %s step %lld: validation accuracy %.2f%%  macro-F1 %.4f%s", c->name,
			      (long long)c->at.phase_step, 100 * accuracy, value_of(eval, "macro_f1"), best ? "  best" : "");
	if (out && !rc)
		*out = eval;
	else
		json_decref(eval);
	return rc;
}

static wn_code interrupted(compressor *c, wn_error *err)
{
	wn_code rc = save_state(c, err);
	return rc ? rc : wn_fail(err, WN_CANCELLED, "stopped in %s at step %lld of %lld", c->name, (long long)c->at.phase_step,
				 (long long)c->it->steps);
}

static bool reached_max(const compressor *c) { return c->opt->max_steps && c->at.step >= c->opt->max_steps; }

static wn_code distil(compressor *c, wn_error *err)
{
	const compress_config *cc = c->w->config;
	wn_code rc = WN_OK;
	while (!rc && c->at.phase_step < c->it->steps && !reached_max(c)) {
		distill_result r;
		double lr;
		if (stopped(c))
			return interrupted(c, err);
		if ((rc = distil_step(c, &r, &lr, err)))
			return rc;
		const bool done = c->at.phase_step == c->it->steps;
		show_step(c, &r, lr, done);
		if (!done && cc->eval_every && c->at.phase_step % cc->eval_every == 0)
			rc = validate(c, NULL, err);
		if (!rc && !done && c->at.phase_step % cc->checkpoint_every == 0)
			rc = save_state(c, err);
	}
	return rc;
}

/* ---- one iteration ---- */

static wn_code log_iteration(compressor *c, json_t *before, json_t *after, wn_error *err)
{
	json_t *latency;
	wn_code rc = measure(c, blip2_get_config(c->student), &latency, err);
	if (rc)
		return rc;
	const blip2_config *shape = blip2_get_config(c->student);
	return train_log_write(&c->log, json_pack("{s:s, s:i, s:s, s:f, s:f, s:o, s:o, s:O, s:O, s:f}", "event", "iteration", "iteration",
						  c->at.phase + 1, "name", c->name, "parameters", cost_parameters(shape), "flops",
						  cost_flops(c->cost, shape), "latency_ms", latency, "score_lost",
						  c->score_lost ? json_incref(c->score_lost) : json_null(), "before", before, "after",
						  after, "seconds", monotonic_seconds() - c->started),
			       err);
}

/* The iteration's model and what was pruned, where the next iteration (or a resumed run) begins. pruning.json stands beside the
 * model, written first: a model directory that is there has its pruning.json. */
static wn_code save_iteration(compressor *c, const json_t *eval, wn_error *err)
{
	char dir[PATH_MAX], path[PATH_MAX + 32];
	wn_code rc = run_path(c, "iterations", dir, err);
	if (!rc)
		rc = run_dir_make(dir, err);
	if (!rc)
		rc = iteration_path(c, c->at.phase, dir, err);
	snprintf(path, sizeof path, "%s.pruning.json", dir);
	if (!rc && c->pruning)
		rc = write_json(path, c->pruning, err);
	return rc ? rc : save_model(c, dir, c->student, DTYPE_F32, eval, err);
}

static wn_code run_iteration(compressor *c, bool resumed, wn_error *err)
{
	json_t *before = NULL, *after = NULL;
	wn_code rc = open_iteration(c, err);
	progress_start(&c->progress, c->w->out, c->name, c->at.phase_step, c->it->steps, (double)c->w->config->log_every_ns * 1e-9);
	if (!rc)
		rc = evaluate(c, &c->w->validation, c->student, &before, err);
	if (!rc && c->w->validation.used)
		progress_note(&c->progress, "%s: %.3f M parameters, validation accuracy %.2f%% before distillation", c->name,
			      cost_parameters(blip2_get_config(c->student)) / 1e6, 100 * value_of(before, "accuracy"));
	if (!rc && resumed)
		rc = train_state_load(c->w->config->run_dir, &c->at, blip2_weights(c->student), distiller_adamw(c->distiller), err);
	else if (!rc)
		rc = save_state(c, err);
	if (!rc)
		rc = distil(c, err);
	if (!rc && c->at.phase_step == c->it->steps) {
		rc = save_state(c, err);
		if (!rc)
			rc = validate(c, &after, err);
		if (!rc)
			rc = log_iteration(c, before, after, err);
		if (!rc)
			rc = save_iteration(c, after, err);
	} else if (!rc) {
		rc = save_state(c, err);
	}
	json_decref(before);
	json_decref(after);
	return rc;
}

/* ---- the run ---- */

static wn_code log_teacher(compressor *c, wn_error *err)
{
	const blip2_config *shape = blip2_get_config(c->w->teacher.model);
	json_t *eval;
	wn_code rc = evaluate(c, &c->w->validation, c->w->teacher.model, &eval, err);
	if (rc)
		return rc;
	if (c->w->validation.used)
		fprintf(c->w->out, "teacher: %.3f M parameters, validation accuracy %.2f%%\n", cost_parameters(shape) / 1e6,
			100 * value_of(eval, "accuracy"));
	return train_log_write(&c->log, json_pack("{s:s, s:f, s:f, s:o, s:o}", "event", "teacher", "parameters", cost_parameters(shape),
						  "flops", cost_flops(c->cost, shape), "latency_ms",
						  c->plan->teacher_ms > 0 ? json_number(c->plan->teacher_ms) : json_null(), "eval", eval),
			       err);
}

static wn_code log_final(compressor *c, const blip2 *m, wn_error *err)
{
	const split_data *s = c->w->test.used ? &c->w->test : &c->w->validation;
	const int tokens = c->w->config->request_tokens, runs = c->w->config->latency_runs;
	json_t *latency = NULL, *eval = NULL, *teacher_eval = NULL;
	request_use use = {NAN, NAN}, teacher_use = {NAN, NAN};
	wn_code rc = measure(c, blip2_get_config(m), &latency, err);
	if (!rc && runs)
		rc = request_use_measure(&use, m, tokens, runs, err);
	if (!rc && runs)
		rc = request_use_measure(&teacher_use, c->w->teacher.model, tokens, runs, err);
	if (!rc)
		rc = evaluate(c, s, m, &eval, err);
	if (!rc)
		rc = evaluate(c, s, c->w->teacher.model, &teacher_eval, err);
	if (!rc && s->used)
		fprintf(c->w->out, "%s: student %.2f%% (macro-F1 %.4f), teacher %.2f%% (macro-F1 %.4f)\n", s->name,
			100 * value_of(eval, "accuracy"), value_of(eval, "macro_f1"), 100 * value_of(teacher_eval, "accuracy"),
			value_of(teacher_eval, "macro_f1"));
	if (!rc)
		return train_log_write(&c->log, json_pack("{s:s, s:f, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "event", "final", "parameters",
							  cost_parameters(blip2_get_config(m)), "flops",
							  cost_flops(c->cost, blip2_get_config(m)), "latency_ms", latency, "eval", eval,
							  "teacher_eval", teacher_eval, "cpu_seconds_per_request",
							  json_number(use.cpu_seconds), "teacher_cpu_seconds_per_request",
							  json_number(teacher_use.cpu_seconds), "joules_per_request",
							  json_number(use.joules), "teacher_joules_per_request",
							  json_number(teacher_use.joules)), err);
	json_decref(latency);
	json_decref(eval);
	json_decref(teacher_eval);
	return rc;
}

static wn_code finish(compressor *c, wn_error *err)
{
	const compress_config *cc = c->w->config;
	static const dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
	char best[PATH_MAX], dir[PATH_MAX];
	checkpoint ck = {0};
	const checkpoint_options o = {.skip_digest = true};
	wn_code rc = run_path(c, "best", best, err);
	if (!rc)
		rc = run_path(c, "export", dir, err);
	if (!rc && *cc->export_dir && snprintf(dir, sizeof dir, "%s", cc->export_dir) >= (int)sizeof dir)
		rc = wn_fail(err, WN_TOO_LARGE, "export.dir: path too long");
	if (!rc)
		rc = checkpoint_load(&ck, best, &o, err);
	if (!rc)
		rc = save_model(c, dir, ck.model, dtypes[cc->export_dtype], json_object_get(ck.manifest.lineage, "validation"), err);
	if (!rc)
		rc = log_final(c, ck.model, err);
	if (!rc)
		fprintf(c->w->out, "exported %s\n", dir);
	checkpoint_close(&ck);
	return rc;
}

/* Where to go on: position and log of an interrupted run. *resumed: there is a checkpoint of the iteration in c->at. */
static wn_code restore(compressor *c, bool *resumed, wn_error *err)
{
	const char *run = c->w->config->run_dir;
	char path[PATH_MAX];
	wn_code rc = run_path(c, "log.jsonl", path, err);
	*resumed = false;
	if (!rc && c->opt->resume && train_state_exists(run)) {
		*resumed = true;
		rc = train_state_position(run, &c->at, err);
		if (!rc && strcmp(c->at.identity, c->w->identity) != 0)
			rc = wn_fail(err, WN_INVALID, "%s: its checkpoint is of another full, data set or plan", run);
		if (!rc && c->at.phase >= c->plan->count)
			rc = wn_fail(err, WN_INVALID, "%s: its checkpoint is in iteration %d, the plan has %d", run, c->at.phase + 1,
				     c->plan->count);
		if (!rc)
			fprintf(c->w->out, "resuming in iteration %d of %d at step %lld\n", c->at.phase + 1, c->plan->count,
				(long long)c->at.phase_step);
	}
	snprintf(c->at.identity, sizeof c->at.identity, "%s", c->w->identity);
	return rc ? rc : train_log_open(&c->log, path, c->at.log_bytes, err);
}

static wn_code run_all(compressor *c, bool resumed, wn_error *err)
{
	wn_code rc = resumed ? WN_OK : log_teacher(c, err);
	while (!rc && c->at.phase < c->plan->count) {
		rc = run_iteration(c, resumed, err);
		const bool done = !rc && c->at.phase_step >= c->it->steps;
		if (!rc && !done) {
			fprintf(c->w->out, "stopped in %s at step %lld (--max-steps); --resume continues\n", c->name,
				(long long)c->at.phase_step);
			return WN_OK;
		}
		if (done && c->at.phase + 1 == c->plan->count)
			return finish(c, err);
		close_iteration(c);
		resumed = false;
		c->at.phase++;
		c->at.phase_step = 0;
		c->at.has_best = false;
	}
	return rc;
}

wn_code compressor_run(workspace *w, const compress_plan *p, cost_model *cost, const compressor_options *o, wn_error *err)
{
	compressor c = {.w = w, .plan = p, .cost = cost, .opt = o, .metrics = calloc(1, sizeof *c.metrics)};
	bool resumed = false;
	wn_code rc = c.metrics ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for metrics");
	if (!rc)
		rc = restore(&c, &resumed, err);
	if (!rc)
		rc = run_all(&c, resumed, err);
	close_iteration(&c);
	teacher_close(&c.teacher);
	train_log_close(&c.log);
	free(c.metrics);
	return rc;
}
