/* planner.c: see planner.h.
 *
 * The search works on plan_shape_widths: a few numbers a component. plan_moves.h knows which smaller widths are allowed,
 * plan_loss.h what they give up, cost.h what they cost; `descend` is the greedy loop over the three, and `plan_latency` the
 * loop around it that measures. */
#include "prune/compress/planner.h"

#include <math.h>
#include <string.h>

#include "prune/compress/plan_moves.h"

#define LOOKAHEAD       4  /* steps of one move */
#define MAX_CORRECTIONS 3
#define MEASURE_RUNS    30

const char *const TARGET_NAMES[] = {"parameters", "flops", "latency_ms", NULL};
static const char *const UNITS[] = {"parameters", "FLOPs", "ms"};

typedef struct move {
	int which; /* component */
	move_kind kind;
	int steps;
	plan_shape_widths to;
	double loss, cost; /* loss: of the move; cost: of the shape it leads to */
} move;

typedef struct planner {
	plan_space space;
	const plan_options *o;
	cost_model *cost;
	plan_loss *loss;
	double scale; /* measured / predicted latency, as far as known */
	bool refused[NUM_COMPONENTS][NUM_MOVES];
	double promised[NUM_COMPONENTS][NUM_MOVES]; /* cost that moves since the last measured candidate were to save */
} planner;

/* ---- descending ---- */

static wn_code cost_of(const planner *p, const plan_shape_widths *w, double *cost, wn_error *err)
{
	blip2_config shape;
	plan_space_shape(&shape, &p->space, w);
	if (p->o->kind != TARGET_LATENCY_MS) {
		*cost = p->o->kind == TARGET_PARAMETERS ? cost_parameters(&shape) : cost_flops(p->cost, &shape);
		return WN_OK;
	}
	wn_code rc = cost_latency(p->cost, &shape, cost, err);
	*cost *= p->scale;
	return rc;
}

/* The best move from `from`, *found false when none saves anything. */
static wn_code best_move(const planner *p, const plan_shape_widths *from, double cost, move *best, bool *found, wn_error *err)
{
	const double lost = plan_loss_of(p->loss, from);
	double best_rate = INFINITY;
	*found = false;
	for (int c = 0; c < NUM_COMPONENTS; c++)
		for (int k = 0; k < NUM_MOVES; k++) {
			move m = {.which = c, .kind = (move_kind)k, .to = *from};
			while (!p->refused[c][k] && m.steps++ < (k == MOVE_BLOCKS ? 1 : LOOKAHEAD) && plan_step_down(&p->space, c, m.kind, &m.to)) {
				wn_code rc = cost_of(p, &m.to, &m.cost, err);
				if (rc)
					return rc;
				const double saved = fmin(cost - m.cost, cost - p->o->target);
				if (saved <= 0)
					continue;
				m.loss = fmax(0, plan_loss_of(p->loss, &m.to) - lost);
				const double rate = m.loss / saved;
				/* at equal rates, the one that goes further */
				if (rate < best_rate || (rate == best_rate && m.cost < best->cost)) {
					best_rate = rate;
					*best = m;
					*found = true;
				}
			}
		}
	return WN_OK;
}

static void print_move(const planner *p, const plan_shape_widths *from, const move *m)
{
	if (p->o->out)
		fprintf(p->o->out, "%s %s %d -> %d: gives up %.4g, %.4g %s\n", shape_stack_name((component)m->which), MOVE_NAMES[m->kind],
		        plan_width(from, m->which, m->kind), plan_width(&m->to, m->which, m->kind), m->loss, m->cost, UNITS[p->o->kind]);
}

static wn_code out_of_reach(const planner *p, double reached, wn_error *err)
{
	return wn_fail(err, WN_INVALID, "target %s: found %.6g %s, out of reach: the smallest that the limits allow is %.6g",
	               TARGET_NAMES[p->o->kind], p->o->target, UNITS[p->o->kind], reached);
}

/* The last move went further than the target asked: undoes single steps, those first that regain the most importance for
 * what they cost, while the target is still met. */
static wn_code give_back(planner *p, plan_shape_widths *w, double *cost, wn_error *err)
{
	for (;;) {
		const double lost = plan_loss_of(p->loss, w);
		double best_rate = 0;
		move best = {0};
		for (int c = 0; c < NUM_COMPONENTS; c++)
			for (int k = 0; k < NUM_MOVES; k++) {
				move m = {.which = c, .kind = (move_kind)k, .to = *w};
				if (!plan_step_up(&p->space, c, m.kind, &m.to))
					continue;
				wn_code rc = cost_of(p, &m.to, &m.cost, err);
				if (rc)
					return rc;
				m.loss = plan_loss_of(p->loss, &m.to) - lost;
				const double rate = m.cost > *cost ? -m.loss / (m.cost - *cost) : INFINITY;
				if (m.cost <= p->o->target && m.loss < 0 && rate > best_rate) {
					best_rate = rate;
					best = m;
				}
			}
		if (best_rate == 0)
			return WN_OK;
		print_move(p, w, &best);
		p->promised[best.which][best.kind] += *cost - best.cost;
		*w = best.to;
		*cost = best.cost;
	}
}

static bool any_refused(const planner *p)
{
	for (int c = 0; c < NUM_COMPONENTS; c++)
		for (int k = 0; k < NUM_MOVES; k++)
			if (p->refused[c][k])
				return true;
	return false;
}

/* Moves from *w until the target is met; *cost is that of what is left, *moves counts. */
static wn_code descend(planner *p, plan_shape_widths *w, double *cost, int *moves, wn_error *err)
{
	const plan_shape_widths least = plan_smallest(&p->space);
	double least_cost;
	wn_code rc = cost_of(p, w, cost, err);
	if (rc || *cost <= p->o->target)
		return rc;
	if ((rc = cost_of(p, &least, &least_cost, err)))
		return rc;
	if (least_cost > p->o->target)
		return out_of_reach(p, fmin(least_cost, *cost), err);
	while (*cost > p->o->target) {
		move m = {0};
		bool found;
		if ((rc = best_move(p, w, *cost, &m, &found, err)))
			return rc;
		if (!found) {
			/* heads and head_dim hindered each other on the way: the limits do allow less */
			if (any_refused(p))
				return out_of_reach(p, *cost, err);
			*w = least;
			*cost = least_cost;
			break;
		}
		print_move(p, w, &m);
		p->promised[m.which][m.kind] += *cost - m.cost;
		*w = m.to;
		*cost = m.cost;
		++*moves;
	}
	return give_back(p, w, cost, err);
}

/* ---- measuring ---- */

typedef struct candidate {
	plan_shape_widths widths;
	double predicted_ms, measured_ms; /* measured 0: there is none */
	int moves;
} candidate;

static wn_code measure(const planner *p, candidate *c, wn_error *err)
{
	blip2_config shape;
	plan_space_shape(&shape, &p->space, &c->widths);
	wn_code rc = cost_measure(p->cost, &shape, MEASURE_RUNS, &c->measured_ms, err);
	if (!rc && p->o->out)
		fprintf(p->o->out, "candidate after %d moves: predicted %.4g ms, measured %.4g ms\n", c->moves, c->predicted_ms, c->measured_ms);
	return rc;
}

/* A candidate was no faster than the one before: the kind of move that promised most is not taken again. False when none
 * promised anything. */
static bool refuse(planner *p)
{
	int which = 0, kind = 0;
	for (int c = 0; c < NUM_COMPONENTS; c++)
		for (int k = 0; k < NUM_MOVES; k++)
			if (p->promised[c][k] > p->promised[which][kind])
				which = c, kind = k;
	p->refused[which][kind] = true;
	if (p->o->out)
		fprintf(p->o->out, "smaller but not faster: no more moves of %s %s\n", shape_stack_name((component)which), MOVE_NAMES[kind]);
	return p->promised[which][kind] > 0;
}

static wn_code plan_latency(planner *p, candidate *out, wn_error *err)
{
	wn_error out_of_moves = {0};
	const double target = p->o->target, most = target * (1 + p->o->tolerance), least = target * (1 - p->o->tolerance);
	candidate now = {.widths = p->space.start}, before = {0}, best = {0};
	for (int corrections = 0;;) {
		memset(p->promised, 0, sizeof p->promised);
		wn_code rc = descend(p, &now.widths, &now.predicted_ms, &now.moves, &out_of_moves);
		if (rc == WN_INVALID && best.measured_ms > 0)
			break; /* what was found before still meets the target */
		if (rc)
			return wn_fail(err, rc, "%s", out_of_moves.message);
		if ((rc = measure(p, &now, err)))
			return rc;
		if (before.measured_ms > 0 && now.measured_ms >= before.measured_ms) {
			if (!refuse(p))
				return out_of_reach(p, before.measured_ms, err);
			now = before;
			continue;
		}
		if (now.measured_ms <= most && now.measured_ms > best.measured_ms)
			best = now;
		/* too fast, but as predicted: no nearer shape was found */
		const bool as_predicted = fabs(now.measured_ms / now.predicted_ms - 1) <= p->o->tolerance;
		if (now.measured_ms <= most && (now.measured_ms >= least || now.moves == 0 || as_predicted))
			break;
		if (corrections++ == MAX_CORRECTIONS) {
			if (best.measured_ms > 0)
				break;
			return wn_fail(err, WN_INVALID,
			               "target latency_ms: %d corrections did not bring it within %g %% of %.6g ms: the last candidate took %.6g",
			               MAX_CORRECTIONS, 100 * p->o->tolerance, target, now.measured_ms);
		}
		p->scale *= now.measured_ms / now.predicted_ms;
		if (now.measured_ms > most) {
			before = now;
		} else { /* too much was taken away */
			now = (candidate){.widths = p->space.start};
			before = (candidate){0};
		}
	}
	*out = best;
	return WN_OK;
}

/* ---- the whole ---- */

static wn_code check(const blip2_config *teacher, const structure_scores *scores, const plan_options *o, wn_error *err)
{
	if (!(o->target > 0) || !isfinite(o->target))
		return wn_fail(err, WN_INVALID, "target %s: found %g, expected more than 0", TARGET_NAMES[o->kind], o->target);
	if (o->kind == TARGET_LATENCY_MS && !(o->tolerance > 0 && o->tolerance <= 1))
		return wn_fail(err, WN_INVALID, "tolerance of latency_ms: found %g, expected more than 0 and at most 1", o->tolerance);
	if (o->limits.multiple < 1)
		return wn_fail(err, WN_INVALID, "multiple of widths: found %d, expected at least 1", o->limits.multiple);
	if (!shape_same(teacher, &scores->shape))
		return wn_fail(err, WN_INVALID, "the scores are of another shape than the teacher's");
	return WN_OK;
}

wn_code plan_shape(plan_result *out, const blip2_config *teacher, const structure_scores *scores, cost_model *cost,
                   const plan_options *o, wn_error *err)
{
	planner p = {.o = o, .cost = cost, .scale = 1};
	candidate found = {0};
	double reached;
	memset(out, 0, sizeof *out);
	wn_code rc = check(teacher, scores, o, err);
	if (!rc)
		rc = plan_space_init(&p.space, teacher, &o->limits, err);
	if (!rc)
		rc = plan_loss_open(&p.loss, scores, o->block_choice, o->limits.uniform_heads, err);
	if (rc)
		return rc;
	found.widths = p.space.start;
	if (o->kind == TARGET_LATENCY_MS)
		rc = plan_latency(&p, &found, err);
	else
		rc = descend(&p, &found.widths, &reached, &found.moves, err);
	plan_loss_close(&p.loss);
	if (rc)
		return rc;
	plan_space_shape(&out->shape, &p.space, &found.widths);
	out->parameters = cost_parameters(&out->shape);
	out->flops = cost_flops(cost, &out->shape);
	out->predicted_ms = found.predicted_ms;
	out->measured_ms = found.measured_ms;
	out->moves = found.moves;
	return WN_OK;
}
