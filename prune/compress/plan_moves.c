/* plan_moves.c: see plan_moves.h. */
#include "prune/compress/plan_moves.h"

#include <string.h>

#define STEPS 32  /* from a teacher's width to nothing */
#define WIDE  128 /* hidden widths from here on are cut in multiples of 16 */

const char *const MOVE_NAMES[NUM_MOVES] = {"blocks", "ffn", "heads", "head_dim", "hidden", "queries"};

static int larger(int a, int b) { return a > b ? a : b; }
static int smaller(int a, int b) { return a < b ? a : b; }
static int round_up(int v, int multiple) { return (v + multiple - 1) / multiple * multiple; }

/* ---- shapes ---- */

/* Widths of a block of the teacher's; of one with cross-attention, if there is any. */
static block_widths common_of(const plan_space *p, int which)
{
	block_widths w;
	shape_common_widths(&w, shape_stack(p->teacher, (component)which));
	return w;
}

/* Where so many blocks have cross-attention; false when the plan may not have so many. */
static bool pattern_of(cross_pattern *out, const plan_space *p, int which, int blocks)
{
	const cross_pattern full = cross_pattern_of(shape_stack(p->teacher, (component)which));
	return cross_pattern_plan(out, &full, blocks, p->limits->uniform_heads);
}

void plan_space_shape(blip2_config *out, const plan_space *p, const plan_shape_widths *w)
{
	*out = *p->teacher;
	out->num_query_tokens = w->queries;
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const plan_widths *to = &w->of[c];
		const block_widths full = common_of(p, c);
		stack_config *s = shape_stack_in(out, (component)c);
		cross_pattern cross;
		pattern_of(&cross, p, c, to->blocks);
		s->num_hidden_layers = to->blocks;
		s->hidden_size = to->hidden;
		memset(s->blocks, 0, sizeof s->blocks);
		for (int i = 0; i < to->blocks; i++) {
			block_widths *b = &s->blocks[i];
			*b = (block_widths){.num_heads = to->heads, .head_dim = to->head_dim, .ffn_dim = to->ffn};
			if (cross.has[i]) {
				b->cross_num_heads = smaller(to->heads, full.cross_num_heads);
				b->cross_head_dim = smaller(to->head_dim, full.cross_head_dim);
			}
		}
	}
}

/* ---- moves ---- */

/* Head sizes that kernels like. */
static bool is_usual(int head_dim) { return head_dim % (head_dim <= 32 ? 8 : 16) == 0; }

/* The heads that make up `hidden`, no more and no wider than `most`: see planner.h. */
static bool fit_heads(const plan_widths *most, int hidden, plan_widths *out)
{
	for (int d = most->head_dim; d > 0; d--)
		if ((d == most->head_dim || is_usual(d)) && hidden % d == 0 && hidden / d <= most->heads) {
			out->hidden = hidden;
			out->heads = hidden / d;
			out->head_dim = d;
			return true;
		}
	return false;
}

/* What self- and cross-attention of the teacher both have room for. */
static plan_widths most_heads(const plan_space *p, int which)
{
	const block_widths cross = common_of(p, which);
	plan_widths most = p->full.of[which];
	if (cross.cross_num_heads) {
		most.heads = smaller(most.heads, cross.cross_num_heads);
		most.head_dim = smaller(most.head_dim, cross.cross_head_dim);
	}
	return most;
}

/* The next value below `now` by at least a step: a multiple, not below min. 0: there is none. */
static int next_width(int now, int full, int multiple, int min)
{
	const int step = round_up(larger(1, full / STEPS), multiple), lowest = round_up(larger(1, min), multiple);
	const int next = now - step > lowest ? (now - step) / multiple * multiple : lowest;
	return next < now ? next : 0;
}

static int next_head_dim(int now)
{
	for (int d = now - 1; d > 0; d--)
		if (is_usual(d))
			return d;
	return 0;
}

static bool step_hidden(const plan_space *p, int which, plan_widths *w)
{
	const plan_limits *l = p->limits;
	const int full = p->full.of[which].hidden;
	if (!l->uniform_heads)
		return (w->hidden = next_width(w->hidden, full, l->multiple, l->min_hidden[which])) > 0;
	const plan_widths most = most_heads(p, which);
	const int min = larger(l->min_hidden[which], l->min_inner[which]);
	for (int v = next_width(w->hidden, full, l->multiple, min); v > 0 && v >= min; v -= l->multiple)
		if (fit_heads(&most, v, w))
			return true;
	return false;
}

/* The next number of blocks below *blocks that the limits and the pattern of cross-attention allow. */
static bool step_blocks(const plan_space *p, int which, int *blocks)
{
	cross_pattern cross;
	while (--*blocks >= larger(1, p->limits->min_blocks[which]))
		if (pattern_of(&cross, p, which, *blocks))
			return true;
	return false;
}

bool plan_step_down(const plan_space *p, int which, move_kind kind, plan_shape_widths *to)
{
	const plan_limits *l = p->limits;
	plan_widths *w = &to->of[which];
	int next;
	switch (kind) {
	case MOVE_BLOCKS:
		return step_blocks(p, which, &w->blocks);
	case MOVE_FFN:
		return (w->ffn = next_width(w->ffn, p->full.of[which].ffn, l->multiple, l->min_ffn[which])) > 0;
	case MOVE_HEADS:
		return !l->uniform_heads && --w->heads > 0 && w->heads * w->head_dim >= l->min_inner[which];
	case MOVE_HEAD_DIM:
		next = next_head_dim(w->head_dim);
		w->head_dim = next;
		return !l->uniform_heads && next > 0 && w->heads * next >= l->min_inner[which];
	case MOVE_HIDDEN:
		return step_hidden(p, which, w);
	default:
		return which == COMPONENT_QFORMER && (to->queries = next_width(to->queries, p->full.queries, 1, l->min_queries)) > 0;
	}
}

int plan_width(const plan_shape_widths *w, int which, move_kind kind)
{
	const plan_widths *p = &w->of[which];
	const int all[NUM_MOVES] = {p->blocks, p->ffn, p->heads, p->head_dim, p->hidden, w->queries};
	return all[kind];
}

bool plan_step_up(const plan_space *p, int which, move_kind kind, plan_shape_widths *to)
{
	const plan_widths *top = &p->start.of[which];
	const int now = plan_width(to, which, kind);
	plan_shape_widths walk = *to, next;
	plan_widths *w = &walk.of[which];
	if (now == plan_width(&p->start, which, kind))
		return false;
	switch (kind) {
	case MOVE_BLOCKS: w->blocks = top->blocks; break;
	case MOVE_FFN: w->ffn = top->ffn; break;
	case MOVE_HEADS: w->heads = top->heads; break;
	case MOVE_HEAD_DIM: w->head_dim = top->head_dim; break;
	case MOVE_QUERIES: walk.queries = p->start.queries; break;
	default:
		w->hidden = top->hidden;
		if (p->limits->uniform_heads)
			w->heads = top->heads, w->head_dim = top->head_dim;
	}
	for (next = walk; plan_step_down(p, which, kind, &next); walk = next)
		if (plan_width(&next, which, kind) == now) {
			*to = walk;
			return true;
		}
	return false;
}

/* The narrowest attention that the limits allow, when it need not make up the hidden width. */
static void smallest_inner(const plan_space *p, int which, plan_widths *w)
{
	const plan_widths full = p->full.of[which];
	for (int d = full.head_dim; d > 0; d = next_head_dim(d)) {
		const int heads = larger(1, (p->limits->min_inner[which] + d - 1) / d);
		if (heads <= full.heads && heads * d < w->heads * w->head_dim) {
			w->heads = heads;
			w->head_dim = d;
		}
	}
}

/* Moves do not hinder each other, but for those of heads and head_dim. */
plan_shape_widths plan_smallest(const plan_space *p)
{
	plan_shape_widths w = p->start;
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		for (int k = 0; k < NUM_MOVES; k++)
			for (plan_shape_widths next = w; plan_step_down(p, c, (move_kind)k, &next); w = next)
				;
		if (!p->limits->uniform_heads)
			smallest_inner(p, c, &w.of[c]);
	}
	return w;
}

/* ---- where a plan starts and ends ---- */

plan_limits plan_limits_default(const blip2_config *teacher)
{
	plan_limits l = {.min_queries = smaller(2, teacher->num_query_tokens), .multiple = 16, .uniform_heads = true};
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_config *s = shape_stack(teacher, (component)c);
		const int inner = s->blocks[0].num_heads * s->blocks[0].head_dim;
		l.min_blocks[c] = 1;
		l.min_hidden[c] = smaller(s->hidden_size, larger(16, s->hidden_size / 8));
		l.min_ffn[c] = smaller(s->blocks[0].ffn_dim, larger(16, s->blocks[0].ffn_dim / 8));
		l.min_inner[c] = smaller(inner, larger(16, inner / 8));
		if (s->hidden_size < WIDE)
			l.multiple = 8;
	}
	return l;
}

/* With uniform_heads, the largest number of blocks that a frequency has, and the largest widths below the teacher's whose heads
 * make up the hidden width. */
static wn_code set_start(plan_space *p, int which, wn_error *err)
{
	const plan_widths most = most_heads(p, which);
	plan_widths *w = &p->start.of[which];
	cross_pattern cross;
	if (!pattern_of(&cross, p, which, w->blocks) && !step_blocks(p, which, &w->blocks))
		return wn_fail(err, WN_INVALID,
		               "%s: no number of blocks from %d down to the limit has the cross-attention of a cross_attention_frequency",
		               shape_stack_name((component)which), p->full.of[which].blocks);
	if (p->limits->uniform_heads && !fit_heads(&most, w->hidden, w) && !step_hidden(p, which, w))
		return wn_fail(err, WN_INVALID, "%s: no hidden width from %d down to the limit is made up of its heads (%d of %d)",
		               shape_stack_name((component)which), p->full.of[which].hidden, most.heads, most.head_dim);
	return WN_OK;
}

wn_code plan_space_init(plan_space *out, const blip2_config *teacher, const plan_limits *limits, wn_error *err)
{
	*out = (plan_space){.teacher = teacher, .limits = limits, .full = {.queries = teacher->num_query_tokens}};
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_config *s = shape_stack(teacher, (component)c);
		block_widths b;
		if (!shape_common_widths(&b, s))
			return wn_fail(err, WN_UNSUPPORTED, "%s: blocks of different widths, expected one set of widths to plan from",
			               shape_stack_name((component)c));
		out->full.of[c] = (plan_widths){s->num_hidden_layers, s->hidden_size, b.num_heads, b.head_dim, b.ffn_dim};
	}
	out->start = out->full;
	wn_code rc = WN_OK;
	for (int c = 0; c < NUM_COMPONENTS && !rc; c++)
		rc = set_start(out, c, err);
	return rc;
}
