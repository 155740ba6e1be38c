/* compressor.c: see compressor.h. */
#include "prune/compress/compressor.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prune/compress/compress_log.h"
#include "prune/compress/cut.h"
#include "prune/compress/distiller.h"
#include "prune/compress/exporter.h"
#include "prune/progress.h"
#include "prune/run_changes.h"
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
	teacher *teacher;    /* NULL while nothing is learned from it */
	bool teacher_hidden;
	train_log log;
	train_position at;   /* phase: the iteration, phase_step: its step */
	progress progress;
	/* of the iteration at work */
	const iteration *it;
	char name[128];
	cut cut;
	distiller *distiller;
	schedule schedule;
	double started;      /* of the clock; moved back by what earlier processes spent on it */
} compressor;

static bool stopped(const compressor *c) { return c->w->stop && *c->w->stop; }
static bool finishing(const compressor *c) { return c->it->stage < 0; }

/* ---- measuring ---- */

/* A model on validation, as E of compress_log.h; JSON null when none is configured. */
static wn_code evaluate(compressor *c, const blip2 *m, json_t **out, wn_error *err)
{
	const double start = monotonic_seconds();
	wn_code rc = workspace_evaluate_json(c->w, &c->w->validation, m, out, err);
	progress_exclude(&c->progress, monotonic_seconds() - start);
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

/* ---- saving ---- */

static wn_code save_state(compressor *c, wn_error *err)
{
	c->at.phase_seconds = monotonic_seconds() - c->started;
	wn_code rc = train_log_sync(&c->log, &c->at.log_bytes, err);
	return rc ? rc : train_state_save(c->w->config->run_dir, &c->at, blip2_weights(c->cut.student), distiller_adamw(c->distiller), err);
}

static wn_code save_student(const compressor *c, const char *dir, const json_t *eval, wn_error *err)
{
	return workspace_save_student(c->w, dir, c->cut.student, DTYPE_F32, c->name, c->at.step, eval, err);
}

/* The state is saved. */
static wn_code interrupted(const compressor *c, wn_error *err)
{
	return wn_fail(err, WN_CANCELLED, "stopped in %s at step %lld of %lld", c->name, (long long)c->at.phase_step, (long long)c->it->steps);
}

/* ---- an iteration's parts ---- */

static void close_iteration(compressor *c)
{
	distiller_close(&c->distiller);
	cut_close(&c->cut);
}

/* The teacher, with hidden states or without: without them its answers fit a cache that a large transfer set fills. None where
 * only labels are learned. */
static wn_code need_teacher(compressor *c, double hidden, wn_error *err)
{
	const bool needed = distiller_needs_teacher(c->w->config, hidden);
	if (needed && c->teacher && c->teacher_hidden == (hidden > 0))
		return WN_OK;
	teacher_close(&c->teacher);
	c->teacher_hidden = hidden > 0;
	return needed ? workspace_open_teacher(c->w, c->teacher_hidden, &c->teacher, err) : WN_OK;
}

/* resumed: there is a checkpoint of it. */
static wn_code open_iteration(compressor *c, bool resumed, wn_error *err)
{
	const compress_config *cc = c->w->config;
	c->it = &c->plan->iterations[c->at.phase];
	c->started = monotonic_seconds() - c->at.phase_seconds;
	compress_plan_name(c->plan, c->at.phase, c->name, sizeof c->name);
	const double hidden = cc->start == START_SCRATCH ? 0 : finishing(c) ? cc->finish_hidden : cc->loss.hidden;
	wn_code rc = need_teacher(c, hidden, err);
	if (!rc)
		rc = cut_open(&c->cut, c->w, c->plan, c->at.phase, resumed, err);
	if (!rc)
		rc = distiller_open(&c->distiller, c->w, c->teacher, c->cut.student, &c->cut.map, hidden, err);
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

/* Larger accuracy, then smaller nll. Without validation the newest is the best there is. */
static bool is_best(const compressor *c, double accuracy, double nll)
{
	return !c->w->validation.used || !c->at.has_best || accuracy > c->at.best_metric ||
	       (accuracy == c->at.best_metric && nll < c->at.best_loss);
}

static wn_code keep_best(compressor *c, double accuracy, double nll, const json_t *eval, wn_error *err)
{
	char dir[PATH_MAX];
	c->at.has_best = true;
	c->at.best_metric = accuracy;
	c->at.best_loss = nll;
	c->at.best_step = c->at.step;
	wn_code rc = run_dir_path(c->w->config->run_dir, "best", dir, err);
	return rc ? rc : save_student(c, dir, eval, err);
}

/* The student on validation; RUN/best keeps the best one of this iteration. *out is the caller's (or NULL).
 *
 * The state is saved first, its validation owed: however this ends, no step is lost, and what RUN/best holds is what the run's own
 * checkpoints lead to. A run that was killed behind the save of a best and went on from before it, with other settings, would
 * otherwise deliver a student that its log does not know. */
static wn_code validate(compressor *c, json_t **out, wn_error *err)
{
	json_t *eval = NULL;
	wn_error why = {0};
	c->at.eval_pending = true;
	wn_code rc = save_state(c, err);
	if (rc)
		return rc;
	if ((rc = evaluate(c, c->cut.student, &eval, &why)))
		return rc == WN_CANCELLED ? interrupted(c, err) : wn_fail(err, rc, "%s", why.message);
	c->at.eval_pending = false;
	const double accuracy = eval_number(eval, "accuracy"), nll = eval_number(eval, "nll");
	const double metric = isfinite(accuracy) ? accuracy : 0, loss = isfinite(nll) ? nll : 1e30; /* a checkpoint's JSON has no NaN */
	const bool best = is_best(c, metric, loss);
	if (best)
		rc = keep_best(c, metric, loss, eval, err);
	if (!rc)
		rc = train_log_write(&c->log, json_pack("{s:s, s:i, s:I, s:I, s:b, s:O}", "event", "eval", "iteration", c->at.phase + 1, "step",
							(json_int_t)c->at.step, "iteration_step", (json_int_t)c->at.phase_step, "best",
							(int)best, "eval", eval), err);
	if (!rc && c->w->validation.used)
		progress_note(&c->progress, "  %s step %lld: validation accuracy %.2f%%  macro-F1 %.4f%s", c->name,
			      (long long)c->at.phase_step, 100 * accuracy, eval_number(eval, "macro_f1"), best ? "  best" : "");
	if (out && !rc)
		*out = eval;
	else
		json_decref(eval);
	return rc;
}

static bool reached_max(const compressor *c) { return c->opt->max_steps && c->at.step >= c->opt->max_steps; }

static wn_code distil(compressor *c, wn_error *err)
{
	const compress_config *cc = c->w->config;
	wn_code rc = c->at.eval_pending && c->at.phase_step < c->it->steps ? validate(c, NULL, err) : WN_OK;
	while (!rc && c->at.phase_step < c->it->steps && !reached_max(c)) {
		distill_result r;
		double lr;
		if (stopped(c))
			return (rc = save_state(c, err)) ? rc : interrupted(c, err);
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
	const blip2_config *shape = blip2_get_config(c->cut.student);
	wn_code rc = measure(c, shape, &latency, err);
	if (rc)
		return rc;
	return train_log_write(&c->log, json_pack("{s:s, s:i, s:s, s:f, s:f, s:o, s:o, s:O, s:O, s:f}", "event", "iteration", "iteration",
						  c->at.phase + 1, "name", c->name, "parameters", cost_parameters(shape), "flops",
						  cost_flops(c->cost, shape), "latency_ms", latency, "score_lost",
						  c->cut.score_lost ? json_incref(c->cut.score_lost) : json_null(), "before", before,
						  "after", after, "seconds", monotonic_seconds() - c->started),
			       err);
}

/* Where the next iteration (or a resumed run) begins. */
static wn_code save_iteration(compressor *c, const json_t *eval, wn_error *err)
{
	char dir[PATH_MAX];
	wn_code rc = run_dir_path(c->w->config->run_dir, "iterations", dir, err);
	if (!rc)
		rc = run_dir_make(dir, err);
	if (!rc)
		rc = compress_plan_path(c->plan, c->w, c->at.phase, "", dir, err);
	return rc ? rc : save_student(c, dir, eval, err);
}

/* The student as it was cut (*before: how good it is), then as the checkpoint has it. */
static wn_code begin_iteration(compressor *c, bool resumed, json_t **before, wn_error *err)
{
	wn_code rc = open_iteration(c, resumed, err);
	progress_start(&c->progress, c->w->out, c->name, c->at.phase_step, c->it->steps, (double)c->w->config->log_every_ns * 1e-9);
	if (!rc && !resumed) /* from here on it is not scored again */
		rc = save_state(c, err);
	if (!rc)
		rc = evaluate(c, c->cut.student, before, err);
	if (!rc && c->w->validation.used)
		progress_note(&c->progress, "%s: %.3f M parameters, validation accuracy %.2f%% before distillation", c->name,
			      cost_parameters(blip2_get_config(c->cut.student)) / 1e6, 100 * eval_number(*before, "accuracy"));
	if (!rc && resumed)
		rc = train_state_load(c->w->config->run_dir, &c->at, blip2_weights(c->cut.student), distiller_adamw(c->distiller), err);
	return rc;
}

static wn_code run_iteration(compressor *c, bool resumed, wn_error *err)
{
	json_t *before = NULL, *after = NULL;
	wn_code rc = begin_iteration(c, resumed, &before, err);
	if (!rc)
		rc = distil(c, err);
	if (!rc && c->at.phase_step < c->it->steps) { /* --max-steps */
		rc = save_state(c, err);
	} else if (!rc) {
		rc = validate(c, &after, err);
		if (!rc)
			rc = log_iteration(c, before, after, err);
		if (!rc)
			rc = save_iteration(c, after, err);
	}
	json_decref(before);
	json_decref(after);
	return rc;
}

/* ---- the run ---- */

static wn_code log_teacher(compressor *c, wn_error *err)
{
	const blip2_config *shape = blip2_get_config(c->w->teacher.model);
	json_t *eval = NULL;
	wn_code rc = evaluate(c, c->w->teacher.model, &eval, err);
	if (rc)
		return rc;
	if (c->w->validation.used)
		fprintf(c->w->out, "teacher: %.3f M parameters, validation accuracy %.2f%%\n", cost_parameters(shape) / 1e6,
			100 * eval_number(eval, "accuracy"));
	return train_log_write(&c->log, json_pack("{s:s, s:f, s:f, s:o, s:o}", "event", "teacher", "parameters", cost_parameters(shape),
						  "flops", cost_flops(c->cost, shape), "latency_ms",
						  c->plan->teacher_ms > 0 ? json_number(c->plan->teacher_ms) : json_null(), "eval", eval),
			       err);
}

/* Where to go on: position and log of an interrupted run. *resumed: there is a checkpoint of the iteration in c->at. */
static wn_code restore(compressor *c, bool *resumed, wn_error *err)
{
	const char *run = c->w->config->run_dir;
	char path[PATH_MAX];
	wn_code rc = run_dir_path(run, "log.jsonl", path, err);
	*resumed = false;
	if (!rc && c->opt->resume && train_state_exists(run)) {
		*resumed = true;
		rc = train_state_position(run, &c->at, err);
		if (!rc && strcmp(c->at.identity, c->w->identity) != 0)
			rc = wn_fail(err, WN_INVALID, "%s: its checkpoint is of another teacher, data set or plan", run);
		if (!rc && c->at.phase >= c->plan->count)
			rc = wn_fail(err, WN_INVALID, "%s: its checkpoint is in iteration %d, the plan has %d", run, c->at.phase + 1,
				     c->plan->count);
		if (!rc)
			fprintf(c->w->out, "resuming in iteration %d of %d at step %lld\n", c->at.phase + 1, c->plan->count,
				(long long)c->at.phase_step);
	} else if (!rc && c->opt->resume) {
		fprintf(c->w->out, "no checkpoint in %s yet: starting from the beginning\n", run);
	}
	snprintf(c->at.identity, sizeof c->at.identity, "%s", c->w->identity);
	if (!rc)
		rc = train_log_open(&c->log, path, c->at.log_bytes, err);
	return rc ? rc : run_changes_log(&c->log, c->w->changed, err);
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
			return exporter_run(c->w, c->cost, c->name, c->at.best_step, &c->log, err);
		close_iteration(c);
		resumed = false;
		c->at.phase++;
		c->at.phase_step = 0;
		c->at.phase_seconds = 0;
		c->at.has_best = false;
	}
	return rc;
}

wn_code compressor_run(workspace *w, const compress_plan *p, cost_model *cost, const compressor_options *o, wn_error *err)
{
	compressor c = {.w = w, .plan = p, .cost = cost, .opt = o};
	bool resumed = false;
	wn_code rc = restore(&c, &resumed, err);
	if (!rc)
		rc = run_all(&c, resumed, err);
	close_iteration(&c);
	teacher_close(&c.teacher);
	train_log_close(&c.log);
	return rc;
}
