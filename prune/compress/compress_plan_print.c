/* compress_plan_print.c: see compress_plan_print.h. */
#include "prune/compress/compress_plan_print.h"

#include "prune/compress/distiller.h"
#include "prune/progress.h"

#define ESTIMATE_BATCHES 4

/* ---- how long ---- */

/* Seconds of a forward and backward of one batch. m is only read. */
static wn_code time_batch(const workspace *w, blip2 *m, double *seconds, wn_error *err)
{
	distiller *d = NULL;
	structure_scores s = {0};
	wn_code rc = structure_scores_open(&s, blip2_get_config(m), err);
	if (!rc)
		rc = distiller_open_scores(&d, w, m, IMPORTANCE_TAYLOR, err);
	if (!rc) /* the first pass makes primitives and touches memory */
		rc = distiller_score(d, 1, &s, err);
	const double start = monotonic_seconds();
	if (!rc)
		rc = distiller_score(d, ESTIMATE_BATCHES, &s, err);
	*seconds = (monotonic_seconds() - start) / ESTIMATE_BATCHES;
	distiller_close(&d);
	structure_scores_close(&s);
	return rc;
}

/* Of the first and the last shape. */
typedef struct batch_times {
	double teacher, student;             /* seconds a batch; 0: not timed */
	double teacher_flops, student_flops;
} batch_times;

static wn_code time_batches(batch_times *t, const compress_plan *p, const workspace *w, wn_error *err)
{
	blip2 *student = NULL;
	wn_code rc = time_batch(w, w->teacher.model, &t->teacher, err);
	if (!rc)
		rc = blip2_create(&student, &p->final.shape, err);
	if (!rc) {
		blip2_init_weights(student, 1);
		rc = time_batch(w, student, &t->student, err);
	}
	blip2_close(&student);
	return rc;
}

/* Between the two, in proportion to the work. */
static double batch_seconds(const batch_times *t, double flops)
{
	const double range = t->teacher_flops - t->student_flops;
	return t->student + (range > 0 ? (flops - t->student_flops) / range : 0) * (t->teacher - t->student);
}

/* Batches that scoring runs before an iteration. */
static int scored_batches(const workspace *w, const iteration *it)
{
	const compress_config *c = w->config;
	const bool computes = c->importance == IMPORTANCE_TAYLOR || c->importance == IMPORTANCE_ACTIVATION;
	return computes && it->stage != PLAN_FINISH && c->start == START_PRUNED ? c->importance_batches : 0;
}

static bool teacher_answers(const compress_config *c)
{
	return distiller_needs_teacher(c, c->start == START_SCRATCH ? 0 : c->loss.hidden + c->finish_hidden);
}

/* ---- lines ---- */

static void print_shape(FILE *f, const blip2_config *c)
{
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		const stack_config *s = shape_stack(c, (component)i);
		const block_widths *b = &s->blocks[0];
		fprintf(f, "  %-9s hidden %d, %d blocks, %d heads of %d, ffn %d\n", shape_stack_name((component)i), s->hidden_size,
			s->num_hidden_layers, b->num_heads, b->head_dim, b->ffn_dim);
	}
	fprintf(f, "  %d queries\n", c->num_query_tokens);
}

static void print_models(FILE *f, const compress_plan *p, const blip2_config *full, const batch_times *t)
{
	fprintf(f, "teacher: %.2f M parameters, %.3f GFLOP a request", cost_parameters(full) / 1e6, t->teacher_flops / 1e9);
	if (p->teacher_ms > 0)
		fprintf(f, ", %.2f ms", p->teacher_ms);
	fprintf(f, "\n");
	print_shape(f, full);
	fprintf(f, "student: %.3f M parameters (%.1fx fewer), %.4f GFLOP (%.1fx fewer)", p->final.parameters / 1e6,
		cost_parameters(full) / p->final.parameters, p->final.flops / 1e9, t->teacher_flops / p->final.flops);
	if (p->final.measured_ms > 0 && p->teacher_ms > 0)
		fprintf(f, ", %.2f ms (%.1fx faster)", p->final.measured_ms, p->teacher_ms / p->final.measured_ms);
	fprintf(f, "\n");
	print_shape(f, &p->final.shape);
}

/* Returns the seconds of all iterations. */
static double print_iterations(FILE *f, const compress_plan *p, const workspace *w, cost_model *cost, const batch_times *t)
{
	double total = 0;
	char name[128], eta[32];
	for (int i = 0; i < p->count; i++) {
		const iteration *it = &p->iterations[i];
		const double flops = cost_flops(cost, &it->shape), step = batch_seconds(t, flops);
		total += step * (double)(it->steps + scored_batches(w, it));
		compress_plan_name(p, i, name, sizeof name);
		fprintf(f, "  %-28s %8.3f M parameters  %8.4f GFLOP  %6lld steps", name, cost_parameters(&it->shape) / 1e6, flops / 1e9,
			(long long)it->steps);
		format_duration(eta, sizeof eta, step * (double)it->steps);
		fprintf(f, "%s%s\n", t->teacher > 0 ? ", about " : "", t->teacher > 0 ? eta : "");
	}
	return total;
}

wn_code compress_plan_print(const compress_plan *p, const workspace *w, cost_model *cost, FILE *f, wn_error *err)
{
	const blip2_config *full = blip2_get_config(w->teacher.model);
	batch_times t = {.teacher_flops = cost_flops(cost, full), .student_flops = p->final.flops};
	char eta[32];
	wn_code rc = p->read ? WN_OK : time_batches(&t, p, w, err);
	if (rc)
		return rc;
	print_models(f, p, full, &t);
	double total = print_iterations(f, p, w, cost, &t);
	const size_t all = transfer_count(w->transfer);
	const bool answers = teacher_answers(w->config);
	if (answers) /* a forward is about a third of forward and backward */
		total += t.teacher / 3 * (double)all / w->config->batch_size;
	format_duration(eta, sizeof eta, total);
	fprintf(f, "%zu labelled ads, %zu items without a label", w->train.dataset.count, all - transfer_labelled(w->transfer));
	if (w->config->views > 0)
		fprintf(f, ", %d views of every ad", w->config->views);
	if (!p->read)
		fprintf(f, "; about %s for steps%s%s", eta, scored_batches(w, &p->iterations[0]) ? ", scores" : "",
			answers ? " and the teacher's answers" : "");
	fprintf(f, "\n");
	return WN_OK;
}
