/* trainer.c: see trainer.h. */
#include "prune/trainer.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "model/checkpoint.h"
#include "model/classifier.h"
#include "model/dnn.h"
#include "prune/adamw_model.h"
#include "prune/evaluate.h"
#include "prune/export_dir.h"
#include "prune/progress.h"
#include "prune/run_changes.h"
#include "prune/sample_plan.h"
#include "prune/rng.h"
#include "prune/schedule.h"
#include "prune/train_log.h"
#include "prune/train_state.h"

#define MAX_SKIPPED_IN_A_ROW 25 /* updates lost to gradients that are not finite before the run gives up */
#define SMOOTHING           0.95
#define STREAM_PATCHES      0x70617463u /* key of the random subsets of patches */

typedef struct trainer {
	train_run *run;
	const trainer_options *opt;
	task tasks[NUM_TASKS];
	int num_phases;
	int64_t total_steps;
	adamw adamw;
	float *grads;
	train_log log;
	train_position at;
	progress progress;
	/* of the current phase */
	task task;
	const phase_config *phase;
	int64_t phase_steps;
	int micro_batch;
	sample_plan plan;
	batch_item *items;
	batch batch;
	batch_options batch_options;
	blip2_session *session;
	schedule schedule, vision_schedule;
	int32_t *kept; /* [patches of the grid] */
} trainer;

typedef struct step_result {
	double loss, token_accuracy, lr, grad_norm, batch_seconds, seconds;
	bool skipped;
} step_result;

static bool stopped(const trainer *t) { return t->run->stop && *t->run->stop; }
static int eval_cancelled(void *ctx) { return stopped(ctx); }

/* ---- one step ---- */

static void zero_floats(float *p, size_t n)
{
#pragma omp parallel for simd schedule(static)
	for (size_t i = 0; i < n; i++)
		p[i] = 0;
}

static bool only_vision_learns(const trainer *t) { return t->at.phase_step < t->phase->vision_first_steps; }
/* From scratch, the first thing to be learned is how often each answer occurs, image or no image. If vision and Q-Former
 * take part in that, every matrix of the post-norm Q-Former is pushed in one common direction, its outputs become the same
 * for all queries and images, and the gradient behind its norms is gone for good. So the language model goes first. */
static bool only_text_learns(const trainer *t)
{
	return !only_vision_learns(t) && t->at.phase_step < t->phase->vision_first_steps + t->phase->text_first_steps;
}

/* Every stretch of a phase (vision alone, text alone, all) has its own warm-up; the text's is short and at the peak rate. */
static double step_lr(const trainer *t)
{
	const phase_config *p = t->phase;
	int64_t s = t->at.phase_step;
	if (only_vision_learns(t))
		return schedule_lr(&t->vision_schedule, s);
	return only_text_learns(t) ? p->learning_rate : schedule_lr(&t->schedule, s - p->vision_first_steps - p->text_first_steps);
}

/* The patches that this step's vision sees: a random subset of the configured size, at least one.
 * Returns how many. */
static int draw_patches(const trainer *t, int32_t *kept)
{
	const blip2_config *c = blip2_get_config(t->run->model);
	const int grid = (c->image_size / c->patch_size) * (c->image_size / c->patch_size);
	const int want = (int)(t->phase->vision_patch_share * grid + 0.5);
	rng r = rng_open((uint64_t)t->run->config->seed, (uint64_t)t->task, STREAM_PATCHES, (uint64_t)t->at.phase_step);
	int count = 0;
	/* Selection sampling: every subset of `want` indices is equally likely, and they come out in order. */
	for (int i = 0; i < grid; i++)
		if (rng_below(&r, (uint64_t)(grid - i)) < (uint64_t)((want > 1 ? want : 1) - count))
			kept[count++] = i;
	return count;
}

/* Gradient of the mean loss over the whole batch's label tokens: every micro-batch is weighted by the tokens it holds, so
 * how the batch is cut does not matter. sums: loss * tokens, hits, tokens. */
static wn_code accumulate(trainer *t, int label_tokens, double sums[3], double *batch_seconds, wn_error *err)
{
	const blip2_config *bc = blip2_get_config(t->run->model);
	const grad_reducer *red = &t->opt->reducer;
	wn_code rc = WN_OK;
	const int num_kept = only_vision_learns(t) ? draw_patches(t, t->kept) : 0;
	for (int from = 0, part = 0; !rc && from < t->plan.batch_size; from += t->micro_batch, part++) {
		if (red->ranks > 1 && part % red->ranks != red->rank)
			continue;
		int n = t->plan.batch_size - from < t->micro_batch ? t->plan.batch_size - from : t->micro_batch;
		double start = monotonic_seconds();
		rc = batch_fill(&t->batch, t->items + from, n, &t->batch_options, bc->pad_token_id, err);
		*batch_seconds += monotonic_seconds() - start;
		if (rc)
			break;
		blip2_batch view = batch_view(&t->batch);
		float loss = 0;
		int correct = 0, total = 0;
		if (only_vision_learns(t)) {
			rc = blip2_vision_first(t->session, &view, t->kept, num_kept, (float)n / (float)t->plan.batch_size, t->grads, &loss, &correct, &total, err);
		} else if (!(rc = blip2_forward(t->session, &view, err))) {
			rc = blip2_backward(t->session, &view, (float)t->batch.label_tokens / (float)label_tokens, t->grads, &loss, &correct,
					    &total, err);
		}
		sums[0] += (double)loss * total;
		sums[1] += correct;
		sums[2] += total;
	}
	return rc;
}

/* Does p learn in this step? The short way of vision first ends in language_projection, final_layer_norm and the embedding. */
static bool learns(const trainer *t, const param *p)
{
	if (only_text_learns(t))
		return p->component == COMPONENT_TEXT;
	if (!only_vision_learns(t))
		return true;
	static const char *const ends[] = {"language_projection.", "language_model.model.decoder.final_layer_norm.",
					   "language_model.model.decoder.embed_tokens."};
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
		if (!strncmp(p->name, ends[i], strlen(ends[i])))
			return true;
	return p->component == COMPONENT_VISION;
}

/* What does not learn in this step neither counts in the gradient's norm nor moves. */
static void freeze_the_rest(trainer *t)
{
	for (size_t i = 0; i < blip2_num_params(t->run->model); i++) {
		const param *p = blip2_param(t->run->model, i);
		const bool frozen = !learns(t, p);
		adamw_freeze(&t->adamw, i, frozen);
		if (frozen)
			zero_floats(t->grads + p->offset, p->count);
	}
}

static wn_code train_step(trainer *t, step_result *out, wn_error *err)
{
	const size_t count = blip2_weights_count(t->run->model);
	const grad_reducer *red = &t->opt->reducer;
	double start = monotonic_seconds(), sums[3] = {0, 0, 0};
	*out = (step_result){.lr = step_lr(t)};
	int label_tokens = sample_plan_step(&t->plan, t->at.phase_step, t->items);
	zero_floats(t->grads, count);
	wn_code rc = accumulate(t, label_tokens, sums, &out->batch_seconds, err);
	if (!rc && red->ranks > 1)
		rc = red->sum_floats(red->ctx, t->grads, count, err);
	if (!rc && red->ranks > 1)
		rc = red->sum_doubles(red->ctx, sums, 3, err);
	if (rc)
		return rc;
	freeze_the_rest(t);
	out->loss = sums[0] / sums[2];
	out->token_accuracy = sums[1] / sums[2];
	out->grad_norm = grad_norm(t->grads, count);
	out->skipped = !isfinite(out->grad_norm) || !isfinite(out->loss);
	if (!out->skipped)
		adamw_step(&t->adamw, blip2_weights(t->run->model), t->grads, out->lr,
			   grad_clip_scale(out->grad_norm, t->run->config->clip_norm));
	t->at.skipped_in_a_row = out->skipped ? t->at.skipped_in_a_row + 1 : 0;
	if (!out->skipped)
		t->at.smooth_loss = t->at.phase_step ? SMOOTHING * t->at.smooth_loss + (1 - SMOOTHING) * out->loss : out->loss;
	t->at.phase_step++;
	t->at.step++;
	out->seconds = monotonic_seconds() - start;
	if (t->at.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW)
		return wn_fail(err, WN_INVALID, "%s step %lld: loss or gradient was not finite %d times in a row: lower %s.learning_rate",
			       TASK_NAMES[t->task], (long long)t->at.phase_step, MAX_SKIPPED_IN_A_ROW, TASK_NAMES[t->task]);
	return WN_OK;
}

/* JSON has no NaN; a number that is not finite becomes null. */
static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static wn_code log_step(trainer *t, const step_result *s, wn_error *err)
{
	return train_log_write(&t->log,
			       json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:f, s:o, s:f, s:f, s:f, s:b}", "event", "step", "phase",
					 TASK_NAMES[t->task], "step", (json_int_t)t->at.step, "phase_step",
					 (json_int_t)t->at.phase_step, "loss", number(s->loss), "token_accuracy",
					 number(s->token_accuracy), "lr", s->lr, "grad_norm", number(s->grad_norm), "samples_per_s",
					 t->plan.batch_size / s->seconds, "batch_s", s->batch_seconds, "step_s", s->seconds,
					 "skipped", (int)s->skipped),
			       err);
}

static void show_step(trainer *t, const step_result *s, bool last)
{
	char details[160];
	double elapsed = monotonic_seconds() - t->progress.started - t->progress.paused;
	double rate = (double)(t->at.phase_step - t->progress.first) * t->plan.batch_size / (elapsed > 0 ? elapsed : 1);
	snprintf(details, sizeof details, "loss %.4f  tokens %.1f%%  lr %.2e  norm %.2f  %.1f samples/s%s", t->at.smooth_loss,
		 100 * s->token_accuracy, s->lr, s->grad_norm, rate, s->skipped ? "  SKIPPED" : "");
	if (last)
		progress_finish(&t->progress, t->at.phase_step, details);
	else
		progress_update(&t->progress, t->at.phase_step, details);
}

/* ---- saving ---- */

static wn_code save_state(trainer *t, wn_error *err)
{
	wn_code rc = train_log_sync(&t->log, &t->at.log_bytes, err);
	return rc ? rc : train_state_save(t->run->config->run_dir, &t->at, blip2_weights(t->run->model), &t->adamw, err);
}

/* A model directory whose lineage says how it came to be. eval may be NULL. */
static wn_code save_model(trainer *t, const char *dir, const blip2 *m, dtype d, const json_t *eval, wn_error *err)
{
	const train_config *c = t->run->config;
	manifest man = t->run->manifest;
	json_t *ev = eval ? json_deep_copy(eval) : json_object();
	man.lineage = ev ? json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:o}", "stage", "train", "program", "winnow " WINNOW_VERSION,
				     "phase", TASK_NAMES[t->task], "step", (json_int_t)t->at.step, "seed", (json_int_t)c->seed,
				     "modalities", MODALITY_NAMES[c->modalities], "run", t->run->identity, "validation", ev)
			 : NULL;
	if (man.lineage && *c->init_from && json_object_set_new(man.lineage, "init_from", json_string(c->init_from)))
		wn_fail(err, WN_NOMEM, "no memory for the lineage");
	wn_code rc = man.lineage ? checkpoint_save(dir, m, &man, &t->run->image_processor, t->run->tokenizer_path, d, err)
				 : wn_fail(err, WN_NOMEM, "no memory for the lineage");
	json_decref(man.lineage);
	return rc;
}

static wn_code save_in_run(trainer *t, const char *name, const json_t *eval, wn_error *err)
{
	char dir[PATH_MAX];
	wn_code rc = train_run_path(t->run->config, name, dir, err);
	return rc ? rc : save_model(t, dir, t->run->model, DTYPE_F32, eval, err);
}

/* ---- validation ---- */

/* What a validation found, as the log has it, and as two numbers to compare. */
typedef struct eval_result {
	json_t *json;
	const char *metric_name;
	double metric, loss;
} eval_result;

/* Up to here only the vision stack has learned: it is validated on what it learns, and the model is not one to keep yet. */
static bool only_vision_learned(const trainer *t) { return t->at.phase_step <= t->phase->vision_first_steps; }

static wn_code evaluate_phase(trainer *t, eval_result *out, wn_error *err)
{
	train_run *r = t->run;
	split_data *v = &r->validation[t->task];
	batch_options bo = t->batch_options;
	bo.augment_on = false;
	eval_data d = {.dataset = &v->dataset, .images = &v->images, .sequences = &v->sequences, .batch = &bo,
		       .limit = (size_t)r->config->eval_limit, .batch_size = r->config->eval_batch,
		       .cancelled = eval_cancelled, .ctx = t};
	wn_code rc;
	if (only_vision_learned(t)) {
		caption_metrics m;
		if ((rc = evaluate_captions(&d, r->model, r->max_len, true, &m, err)))
			return rc;
		*out = (eval_result){.metric_name = "first-token accuracy", .metric = m.token_accuracy, .loss = m.loss};
		out->json = json_pack("{s:I, s:o, s:f}", "samples", (json_int_t)m.count, "loss", number(m.loss), "first_token_accuracy",
				      m.token_accuracy);
	} else if (t->task == TASK_CAPTION) {
		caption_metrics m;
		if ((rc = evaluate_captions(&d, r->model, r->max_len, false, &m, err)))
			return rc;
		*out = (eval_result){.metric_name = "token accuracy", .metric = m.token_accuracy, .loss = m.loss};
		out->json = json_pack("{s:I, s:o, s:f, s:f}", "samples", (json_int_t)m.count, "loss", number(m.loss), "token_accuracy",
				      m.token_accuracy, "exact_match", m.exact_match);
	} else {
		metrics *m = calloc(1, sizeof *m);
		classifier *c = NULL;
		rc = m ? classifier_borrow(&c, r->model, r->tokenizer, &r->image_processor, &r->manifest, err)
		       : wn_fail(err, WN_NOMEM, "no memory for metrics");
		if (!rc)
			rc = evaluate_audit(&d, c, m, err);
		classifier_close(&c);
		if (!rc) {
			*out = (eval_result){.metric_name = "accuracy", .metric = m->accuracy, .loss = m->nll};
			out->json = json_pack("{s:I, s:o, s:o, s:o, s:o}", "samples", (json_int_t)m->count, "loss", number(m->nll),
					      "accuracy", number(m->accuracy), "macro_f1", number(m->macro_f1), "ece", number(m->ece));
		}
		free(m);
	}
	return rc || out->json ? rc : wn_fail(err, WN_NOMEM, "no memory for metrics");
}

static wn_code log_eval(trainer *t, const json_t *eval, bool best, double seconds, wn_error *err)
{
	json_t *row = json_pack("{s:s, s:s, s:I, s:I, s:b, s:f}", "event", "eval", "phase", TASK_NAMES[t->task], "step",
				(json_int_t)t->at.step, "phase_step", (json_int_t)t->at.phase_step, "best", (int)best, "seconds",
				seconds);
	if (row && json_object_update(row, (json_t *)(uintptr_t)eval)) {
		json_decref(row);
		row = NULL;
	}
	return train_log_write(&t->log, row, err);
}

static wn_code validate(trainer *t, wn_error *err)
{
	if (!t->run->validation[t->task].used)
		return WN_OK;
	eval_result e = {0};
	double start = monotonic_seconds();
	/* Saved, and the validation owed: RUN/best is never one that the run's checkpoints do not lead to (compressor.c). */
	t->at.eval_pending = true;
	wn_code rc = save_state(t, err);
	if (!rc)
		rc = evaluate_phase(t, &e, err);
	if (rc)
		return rc;
	t->at.eval_pending = false;
	const bool keep = !only_vision_learned(t);
	const bool best = keep && (!t->at.has_best || e.metric > t->at.best_metric ||
				   (e.metric == t->at.best_metric && e.loss < t->at.best_loss));
	if (best) {
		t->at.has_best = true;
		t->at.best_metric = e.metric;
		t->at.best_loss = isfinite(e.loss) ? e.loss : 1e30;
		t->at.best_step = t->at.step;
		rc = save_in_run(t, "best", e.json, err);
	}
	if (!rc && keep)
		rc = save_in_run(t, "last", e.json, err);
	double seconds = monotonic_seconds() - start;
	if (!rc)
		rc = log_eval(t, e.json, best, seconds, err);
	progress_exclude(&t->progress, seconds);
	progress_note(&t->progress, "  %s step %lld: validation %s %.2f%%  loss %.4f%s  (%.0fs)", TASK_NAMES[t->task],
		      (long long)t->at.phase_step, e.metric_name, 100 * e.metric, e.loss,
		      best ? "  best" : "", seconds);
	json_decref(e.json);
	return rc;
}

/* ---- phases ---- */

static void close_phase(trainer *t)
{
	sample_plan_close(&t->plan);
	batch_close(&t->batch);
	blip2_session_close(&t->session);
	free(t->items);
	free(t->kept);
	t->items = NULL;
	t->kept = NULL;
}

static wn_code open_phase(trainer *t, wn_error *err)
{
	train_run *r = t->run;
	const train_config *c = r->config;
	t->task = t->tasks[t->at.phase];
	t->phase = &c->phase[t->task];
	t->phase_steps = train_run_steps(r, t->task);
	t->micro_batch = t->phase->micro_batch ? t->phase->micro_batch : t->phase->batch_size;
	t->vision_schedule = (schedule){.peak_lr = t->phase->vision_learning_rate, .min_lr = t->phase->vision_learning_rate / 10,
				        .warmup_steps = t->phase->warmup_steps, .total_steps = t->phase->vision_first_steps};
	t->schedule = (schedule){.peak_lr = t->phase->learning_rate, .min_lr = t->phase->min_learning_rate,
				 .warmup_steps = t->phase->warmup_steps,
				 .total_steps = t->phase_steps - t->phase->vision_first_steps - t->phase->text_first_steps};
	t->batch_options = (batch_options){.image_processor = r->image_processor, .augment = c->augment, .augment_on = true,
					   .blank_images = c->modalities == MODALITIES_TEXT};
	const split_data *main = &r->train[t->task], *replay = &r->train[TASK_CAPTION];
	bool replays = t->task == TASK_AUDIT && t->phase->caption_replay > 0;
	int longest = main->sequences.longest;
	if (replays && replay->sequences.longest > longest)
		longest = replay->sequences.longest;
	longest = batch_round_len(longest, r->max_len);
	blip2_session_options so = blip2_session_defaults();
	so.max_batch = t->micro_batch;
	so.max_text_len = longest;
	so.training = true;
	/* use_vision stays on for the text-only baseline: validation, eval and a server run the model it saves with the vision
	 * stack on a blank image, so training must see what that makes of it. */
	so.bf16 = c->precision == TRAIN_BF16 && dnn_has_bf16();
	wn_code rc = sample_plan_open(&t->plan, t->phase->batch_size, t->phase->caption_replay, (uint64_t)c->seed, (uint64_t)t->task + 1,
				      &main->sequences, &main->images, replays ? &replay->sequences : NULL,
				      replays ? &replay->images : NULL, err);
	const blip2_config *bc = blip2_get_config(r->model);
	const size_t patches = (size_t)(bc->image_size / bc->patch_size) * (size_t)(bc->image_size / bc->patch_size);
	if (!rc && !(t->kept = calloc(patches, sizeof *t->kept)))
		rc = wn_fail(err, WN_NOMEM, "no memory for %zu patches", patches);
	if (!rc && !(t->items = calloc((size_t)t->phase->batch_size, sizeof *t->items)))
		rc = wn_fail(err, WN_NOMEM, "no memory for a batch of %d", t->phase->batch_size);
	if (!rc)
		rc = batch_open(&t->batch, t->micro_batch, longest, r->image_processor.size, err);
	if (!rc)
		rc = blip2_session_open(&t->session, r->model, &so, err);
	return rc;
}

static bool validation_is_due(const trainer *t)
{
	const int64_t s = t->at.phase_step, every = t->run->config->eval_every;
	if (s == t->phase_steps)
		return true;
	if (every)
		return s % every == 0;
	return sample_plan_epochs(&t->plan, s) > sample_plan_epochs(&t->plan, s - 1);
}

static wn_code interrupted(trainer *t, wn_error *err)
{
	wn_code rc = save_state(t, err);
	return rc ? rc : wn_fail(err, WN_CANCELLED, "stopped at step %lld of %lld", (long long)t->at.step, (long long)t->total_steps);
}

static bool reached_max(const trainer *t) { return t->opt->max_steps && t->at.step >= t->opt->max_steps; }

static wn_code run_phase(trainer *t, wn_error *err)
{
	const train_config *c = t->run->config;
	char label[64];
	wn_code rc = open_phase(t, err);
	if (rc)
		return rc;
	snprintf(label, sizeof label, "%s (%d/%d)", TASK_NAMES[t->task], t->at.phase + 1, t->num_phases);
	progress_start(&t->progress, t->run->out, label, t->at.phase_step, t->phase_steps, (double)c->log_every_ns * 1e-9);
	step_result s = {0};
	if (t->at.eval_pending)
		rc = validate(t, err);
	while (!rc && t->at.phase_step < t->phase_steps && !reached_max(t)) {
		if (stopped(t))
			return interrupted(t, err);
		rc = train_step(t, &s, err);
		if (!rc)
			rc = log_step(t, &s, err);
		if (rc)
			return rc;
		bool phase_done = t->at.phase_step == t->phase_steps;
		show_step(t, &s, phase_done);
		if (validation_is_due(t))
			rc = validate(t, err);
		if (!rc && !phase_done && t->at.phase_step % c->checkpoint_every == 0)
			rc = save_state(t, err);
	}
	return rc;
}

static void enter_next_phase(trainer *t)
{
	t->at.phase++;
	t->at.phase_step = 0;
	t->at.has_best = false;
	t->at.best_metric = t->at.best_loss = 0;
	adamw_reset(&t->adamw); /* another loss surface: its moments start fresh, under the phase's own warm-up */
}

/* ---- the run ---- */

static wn_code restore(trainer *t, wn_error *err)
{
	char path[PATH_MAX];
	const train_config *c = t->run->config;
	snprintf(t->at.identity, sizeof t->at.identity, "%s", t->run->identity);
	if (t->opt->resume && train_state_exists(c->run_dir)) {
		wn_code rc = train_state_load(c->run_dir, &t->at, blip2_weights(t->run->model), &t->adamw, err);
		if (rc)
			return rc;
		if (strcmp(t->at.identity, t->run->identity) != 0)
			return wn_fail(err, WN_INVALID, "%s: its checkpoint is of another model, tokenizer, data set or seed", c->run_dir);
		if (t->at.phase >= t->num_phases)
			return wn_fail(err, WN_INVALID, "%s: its checkpoint is in phase %d, the configuration has %d", c->run_dir,
				       t->at.phase + 1, t->num_phases);
		fprintf(t->run->out, "resuming at step %lld of %lld\n", (long long)t->at.step, (long long)t->total_steps);
	} else if (t->opt->resume) {
		fprintf(t->run->out, "no checkpoint in %s yet: starting from the beginning\n", c->run_dir);
	}
	wn_code rc = train_run_path(c, "log.jsonl", path, err);
	if (!rc)
		rc = train_log_open(&t->log, path, t->at.log_bytes, err);
	return rc ? rc : run_changes_log(&t->log, t->run->changed, err);
}

/* The finished model in its delivery precision, from RUN/best or the weights at hand. */
static wn_code export_model(trainer *t, wn_error *err)
{
	const train_config *c = t->run->config;
	static const dtype dtypes[] = {[EXPORT_F32] = DTYPE_F32, [EXPORT_F16] = DTYPE_F16, [EXPORT_BF16] = DTYPE_BF16};
	char dir[PATH_MAX], best[PATH_MAX];
	checkpoint ck = {0};
	checkpoint_options o = {.skip_digest = true};
	const bool from_best = c->export_from == EXPORT_BEST && t->at.has_best;
	wn_code rc = export_dir_path(c->run_dir, c->export_dir, dir, err);
	if (!rc)
		rc = train_run_path(c, "best", best, err);
	if (!rc && from_best)
		rc = checkpoint_load(&ck, best, &o, err);
	if (!rc) {
		const json_t *eval = from_best && ck.has_manifest ? json_object_get(ck.manifest.lineage, "validation") : NULL;
		int64_t now = t->at.step;
		if (from_best)
			t->at.step = t->at.best_step; /* what the lineage tells */
		rc = save_model(t, dir, from_best ? ck.model : t->run->model, dtypes[c->export_dtype], eval, err);
		t->at.step = now;
	}
	checkpoint_close(&ck);
	if (!rc)
		fprintf(t->run->out, "exported %s (%s of step %lld)\n", dir, from_best ? "best" : "last",
			(long long)(from_best ? t->at.best_step : t->at.step));
	return rc;
}

static wn_code run_all(trainer *t, wn_error *err)
{
	wn_code rc = WN_OK;
	while (!rc && t->at.phase < t->num_phases && !reached_max(t)) {
		rc = run_phase(t, err);
		bool done = !rc && t->at.phase_step >= t->phase_steps; /* beyond: resumed with fewer steps */
		bool last = t->at.phase + 1 == t->num_phases;
		close_phase(t);
		if (rc)
			return rc;
		if (done && !last)
			enter_next_phase(t); /* then saved: a resume starts in the new phase */
		rc = save_state(t, err);
		if (done && last)
			break;
	}
	if (rc)
		return rc;
	if (t->at.phase + 1 == t->num_phases && t->at.phase_step >= t->phase_steps && t->phase)
		return export_model(t, err);
	rc = save_in_run(t, "last", NULL, err);
	if (!rc)
		fprintf(t->run->out, "stopped at step %lld of %lld (--max-steps); --resume continues\n", (long long)t->at.step,
			(long long)t->total_steps);
	return rc;
}

wn_code trainer_run(train_run *r, const trainer_options *o, wn_error *err)
{
	trainer t = {.run = r, .opt = o};
	t.num_phases = train_config_phases(r->config, t.tasks);
	for (int i = 0; i < t.num_phases; i++)
		t.total_steps += train_run_steps(r, t.tasks[i]);
	wn_code rc = adamw_open_model(&t.adamw, &t.grads, &r->config->adamw, r->model, err);
	if (!rc)
		rc = restore(&t, err);
	if (!rc)
		rc = run_all(&t, err);
	close_phase(&t);
	train_log_close(&t.log);
	adamw_close(&t.adamw);
	free(t.grads);
	return rc;
}
