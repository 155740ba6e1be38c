/* run_parse.c: see run_parse.h. Lenient about what is absent or of another type (it is left out), strict about sizes. */
#include "prune/report/run_parse.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SANE_NUMBER 1e30 /* beyond it a plot's arithmetic overflows, and nothing measured lies there */
#define SANE_WIDTH  (1 << 24)
#define GROW_FROM   16

const char *const RUN_COMPONENT_KEYS[RUN_COMPONENTS] = {"vision", "qformer", "text"};
const char *const RUN_COMPONENT_TITLES[RUN_COMPONENTS] = {"vision", "Q-Former", "language model"};

static const char *const TERM_KEYS[NUM_TERMS] = {"loss", "nll", "kl", "pair", "relation", "hidden", "accuracy",
                                                 "token_accuracy", "lr", "grad_norm", "samples_per_s"};

void *run_alloc(run *r, size_t count, size_t size)
{
	void **memory = run_grow(r->memory, r->num_memory, sizeof *memory);
	if (!memory)
		return NULL;
	r->memory = memory;
	void *p = calloc(count ? count : 1, size);
	if (p)
		memory[r->num_memory++] = p;
	return p;
}

/* Capacities are the powers of two: when count is one of them, the array is full. */
void *run_grow(void *array, size_t count, size_t size)
{
	if (array && (count < GROW_FROM || (count & (count - 1))))
		return array;
	return reallocarray(array, count ? 2 * count : GROW_FROM, size);
}

static wn_code no_memory(const run *r, wn_error *err) { return wn_fail(err, WN_NOMEM, "%s: no memory for the run", r->dir); }

double run_number(const json_t *object, const char *key)
{
	const json_t *j = json_object_get(object, key);
	double v = json_number_value(j);
	return json_is_number(j) && isfinite(v) && fabs(v) <= SANE_NUMBER ? v : NAN;
}

const char *run_string(const json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }

static int width(const json_t *object, const char *key)
{
	double v = run_number(object, key);
	return v >= 0 && v <= SANE_WIDTH ? (int)v : 0;
}

wn_code run_parse_eval(run *r, run_eval *out, const json_t *j, wn_error *err)
{
	*out = (run_eval){0};
	if (!json_is_object(j))
		return WN_OK;
	const json_t *classes = json_object_get(j, "classes");
	const size_t count = json_array_size(classes);
	if (count > RUN_MAX_CLASSES)
		return wn_fail(err, WN_TOO_LARGE, "%s: %zu classes, expected at most %d", r->dir, count, RUN_MAX_CLASSES);
	run_class *c = run_alloc(r, count, sizeof *c);
	if (!c)
		return no_memory(r, err);
	for (size_t i = 0; i < count; i++) {
		const json_t *k = json_array_get(classes, i);
		const char *label = run_string(k, "label");
		if (label)
			c[out->num_classes++] = (run_class){label, run_number(k, "precision"), run_number(k, "recall"),
			                                    run_number(k, "f1"), run_number(k, "support")};
	}
	out->present = true;
	out->split = run_string(j, "split");
	out->samples = run_number(j, "samples");
	out->accuracy = run_number(j, "accuracy");
	out->macro_f1 = run_number(j, "macro_f1");
	out->ece = run_number(j, "ece");
	out->nll = run_number(j, "nll");
	out->classes = c;
	return WN_OK;
}

static wn_code parse_stack(run *r, run_stack *out, const json_t *j, const char *name, wn_error *err)
{
	const json_t *blocks = json_object_get(j, "blocks");
	const size_t count = json_array_size(blocks);
	if (count > RUN_MAX_BLOCKS)
		return wn_fail(err, WN_TOO_LARGE, "%s: %zu blocks of %s, expected at most %d", r->dir, count, name, RUN_MAX_BLOCKS);
	run_block *b = run_alloc(r, count, sizeof *b);
	if (!b)
		return no_memory(r, err);
	for (size_t i = 0; i < count; i++) {
		const json_t *k = json_array_get(blocks, i);
		b[i] = (run_block){width(k, "num_heads"), width(k, "head_dim"), width(k, "cross_num_heads"), width(k, "cross_head_dim"),
		                   width(k, "ffn_dim")};
	}
	*out = (run_stack){.hidden_size = width(j, "hidden_size"), .num_blocks = (int)count, .blocks = b};
	return WN_OK;
}

wn_code run_parse_widths(run *r, run_widths *out, const json_t *j, wn_error *err)
{
	*out = (run_widths){0};
	for (int i = 0; i < RUN_COMPONENTS; i++) {
		const json_t *stack = json_object_get(j, RUN_COMPONENT_KEYS[i]);
		if (!json_is_object(stack))
			return WN_OK; /* not present: half a shape is none */
		wn_code rc = parse_stack(r, &out->stacks[i], stack, RUN_COMPONENT_KEYS[i], err);
		if (rc)
			return rc;
	}
	out->num_query_tokens = width(j, "num_query_tokens");
	out->present = true;
	return WN_OK;
}

wn_code run_parse_plan(run *r, const json_t *j, wn_error *err)
{
	const json_t *teacher = json_object_get(j, "teacher"), *target = json_object_get(j, "target");
	const json_t *final = json_object_get(j, "final");
	r->has_plan = true;
	r->target_kind = run_string(target, "kind");
	r->target_value = run_number(target, "value");
	r->predicted_ms = run_number(final, "predicted_ms");
	r->measured_ms = run_number(final, "measured_ms");
	if (json_is_object(teacher))
		r->teacher = (run_model){.present = true, .parameters = run_number(teacher, "parameters"),
		                         .flops = run_number(teacher, "flops"), .latency_ms = run_number(teacher, "latency_ms"),
		                         .cpu_seconds = NAN, .joules = NAN};
	wn_code rc = run_parse_widths(r, &r->teacher_widths, json_object_get(teacher, "widths"), err);
	return rc ? rc : run_parse_widths(r, &r->student_widths, json_object_get(final, "widths"), err);
}

wn_code run_parse_ablation(run *r, const json_t *j, wn_error *err)
{
	const json_t *rows = json_object_get(j, "rows");
	const size_t count = json_array_size(rows);
	if (!(r->ablation = run_alloc(r, count, sizeof *r->ablation)))
		return no_memory(r, err);
	r->has_ablation = true;
	for (size_t i = 0; i < count; i++) {
		const json_t *row = json_array_get(rows, i), *runs = json_object_get(row, "runs");
		if (run_string(row, "name") && json_is_array(runs))
			r->ablation[r->num_ablation++] = (run_ablation_row){run_string(row, "name"), runs};
	}
	return WN_OK;
}

/* ---- the log ---- */

static wn_code parse_model(run *r, run_model *out, const json_t *j, wn_error *err)
{
	const run_model planned = *out; /* what the log does not say may stand in the plan */
	const double parameters = run_number(j, "parameters"), flops = run_number(j, "flops"), ms = run_number(j, "latency_ms");
	*out = (run_model){.present = true,
	                   .parameters = isnan(parameters) && planned.present ? planned.parameters : parameters,
	                   .flops = isnan(flops) && planned.present ? planned.flops : flops,
	                   .latency_ms = isnan(ms) && planned.present ? planned.latency_ms : ms,
	                   .cpu_seconds = run_number(j, "cpu_seconds_per_request"),
	                   .joules = run_number(j, "joules_per_request")};
	return run_parse_eval(r, &out->eval, json_object_get(j, "eval"), err);
}

static wn_code parse_final(run *r, const json_t *j, wn_error *err)
{
	r->final = (run_model){0};
	wn_code rc = parse_model(r, &r->final, j, err);
	r->teacher.cpu_seconds = run_number(j, "teacher_cpu_seconds_per_request");
	r->teacher.joules = run_number(j, "teacher_joules_per_request");
	r->final_teacher_ms = run_number(j, "teacher_latency_ms");
	return rc ? rc : run_parse_eval(r, &r->final_teacher, json_object_get(j, "teacher_eval"), err);
}

/* The number of a compression's iteration. */
static int iteration_of(const json_t *j, int otherwise)
{
	const double number = run_number(j, "iteration");
	return number >= 0 && number < 1e6 ? (int)number : otherwise;
}

static wn_code parse_iteration(run *r, const json_t *j, wn_error *err)
{
	run_iteration it = {.number = iteration_of(j, (int)r->num_iterations + 1),
	                    .name = run_string(j, "name"), .parameters = run_number(j, "parameters"),
	                    .flops = run_number(j, "flops"), .latency_ms = run_number(j, "latency_ms"),
	                    .seconds = run_number(j, "seconds")};
	if (!it.name)
		it.name = "(no name)";
	for (int i = 0; i < RUN_COMPONENTS; i++)
		it.score_lost[i] = run_number(json_object_get(j, "score_lost"), RUN_COMPONENT_KEYS[i]);
	wn_code rc = run_parse_eval(r, &it.before, json_object_get(j, "before"), err);
	if (!rc)
		rc = run_parse_eval(r, &it.after, json_object_get(j, "after"), err);
	if (rc)
		return rc;
	while (r->num_iterations && r->iterations[r->num_iterations - 1].number >= it.number)
		r->num_iterations--;
	run_iteration *grown = run_grow(r->iterations, r->num_iterations, sizeof it);
	if (!grown)
		return no_memory(r, err);
	r->iterations = grown;
	grown[r->num_iterations++] = it;
	return WN_OK;
}

/* "3" for an iteration, "audit" for a phase. */
static void stretch_name(char out[32], const json_t *j)
{
	const int iteration = iteration_of(j, -1);
	const char *phase = run_string(j, "phase");
	if (iteration >= 0)
		snprintf(out, 32, "%d", iteration);
	else
		snprintf(out, 32, "%s", phase ? phase : "");
}

/* The segment of a step: the last one, or a new one when its name changes. */
static wn_code find_segment(run *r, const json_t *j, int64_t step, int *out, wn_error *err)
{
	run_segment s = {.first_step = step};
	stretch_name(s.name, j);
	while (r->num_segments && r->segments[r->num_segments - 1].first_step >= step)
		r->num_segments--; /* the steps it had were taken back */
	if (!r->num_segments || strcmp(r->segments[r->num_segments - 1].name, s.name) != 0) {
		run_segment *grown = run_grow(r->segments, r->num_segments, sizeof s);
		if (!grown)
			return no_memory(r, err);
		r->segments = grown;
		grown[r->num_segments++] = s;
	}
	*out = (int)r->num_segments - 1;
	return WN_OK;
}

static wn_code parse_step(run *r, const json_t *j, wn_error *err)
{
	const double step = run_number(j, "step");
	if (!(step >= 0 && step < 1e15))
		return WN_OK;
	run_step s = {.step = (int64_t)step};
	while (r->num_steps && r->steps[r->num_steps - 1].step >= s.step)
		r->num_steps--;
	wn_code rc = find_segment(r, j, s.step, &s.segment, err);
	if (rc)
		return rc;
	for (int i = 0; i < NUM_TERMS; i++)
		s.terms[i] = run_number(j, TERM_KEYS[i]);
	run_step *grown = run_grow(r->steps, r->num_steps, sizeof s);
	if (!grown)
		return no_memory(r, err);
	r->steps = grown;
	grown[r->num_steps++] = s;
	return WN_OK;
}

/* By what came later. */
static bool was_taken_back(const run_validation *old, const run_validation *new)
{
	return old->step > new->step || (old->step == new->step && old->iteration >= new->iteration);
}

/* A training's line has the figures itself, a compression's in "eval". */
static wn_code parse_validation(run *r, const json_t *j, wn_error *err)
{
	const json_t *nested = json_object_get(j, "eval"), *e = json_is_object(nested) ? nested : j;
	const double step = run_number(j, "step"), loss = run_number(e, "loss");
	if (!(step >= 0 && step < 1e15) || json_is_null(nested))
		return WN_OK;
	run_validation v = {.step = (int64_t)step, .iteration = iteration_of(j, 0), .best = json_is_true(json_object_get(j, "best")), .samples = run_number(e, "samples"),
	                    .loss = isnan(loss) ? run_number(e, "nll") : loss, .accuracy = run_number(e, "accuracy"),
	                    .macro_f1 = run_number(e, "macro_f1"), .ece = run_number(e, "ece"),
	                    .token_accuracy = run_number(e, "token_accuracy"),
	                    .first_token_accuracy = run_number(e, "first_token_accuracy"), .exact_match = run_number(e, "exact_match")};
	stretch_name(v.phase, j);
	while (r->num_validations && was_taken_back(&r->validations[r->num_validations - 1], &v))
		r->num_validations--;
	run_validation *grown = run_grow(r->validations, r->num_validations, sizeof v);
	if (!grown)
		return no_memory(r, err);
	r->validations = grown;
	grown[r->num_validations++] = v;
	return WN_OK;
}

wn_code run_parse_event(run *r, const json_t *j, bool *keep, wn_error *err)
{
	const char *event = run_string(j, "event");
	*keep = event && strcmp(event, "step") != 0; /* steps are many, and copied */
	if (!event)
		return WN_OK;
	if (!strcmp(event, "step"))
		return parse_step(r, j, err);
	if (!strcmp(event, "iteration"))
		return parse_iteration(r, j, err);
	if (!strcmp(event, "eval"))
		return parse_validation(r, j, err);
	if (!strcmp(event, "teacher"))
		return parse_model(r, &r->teacher, j, err);
	if (!strcmp(event, "final"))
		return parse_final(r, j, err);
	if (!strcmp(event, "resume")) { /* each says everything that is otherwise than at the beginning */
		r->changed = json_object_get(j, "changed");
		return WN_OK;
	}
	*keep = false;
	return WN_OK;
}

wn_code run_join_plan(run *r, const json_t *plan, wn_error *err)
{
	const json_t *planned = json_object_get(plan, "iterations");
	for (size_t i = 0; i < r->num_iterations; i++) {
		run_iteration *it = &r->iterations[i];
		for (size_t k = 0; k < json_array_size(planned); k++) {
			const json_t *p = json_array_get(planned, k);
			const char *name = run_string(p, "name");
			if (!name || strcmp(name, it->name) != 0)
				continue;
			wn_code rc = run_parse_widths(r, &it->widths, json_object_get(p, "widths"), err);
			if (rc)
				return rc;
		}
	}
	return WN_OK;
}
