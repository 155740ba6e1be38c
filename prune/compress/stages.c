/* stages.c: see stages.h.
 *
 * A shape on the way is a pure function of both ends and of how far each kind of number of each component has come: so many
 * of so many iterations. stages_path only counts iterations and leaves out what did not change. */
#include "prune/compress/stages.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prune/compress/block_choice.h"
#include "prune/compress/shrink_check.h"

enum { BLOCKS, INNER, HIDDEN, QUERIES, NUM_KINDS }; /* bits of STAGE_… */
#define MAX_STEPS 1000000000

static const char *const KIND_NAMES[NUM_KINDS] = {"blocks", "inner", "hidden", "queries"};
#define ALL_STACKS ((1u << NUM_COMPONENTS) - 1)

/* ---- text ---- */

#define BLANKS " \t"

/* The next word of *at into word; false at the end of the field. Words are what is between blanks. */
static bool next_word(const char **at, const char *end, char *word, size_t size)
{
	*at += strspn(*at, BLANKS);
	size_t len = 0;
	while (*at + len < end && !strchr(BLANKS, (*at)[len]))
		len++;
	if (*at >= end)
		return false;
	snprintf(word, size, "%.*s", (int)len, *at);
	*at += len;
	return true;
}

static const char *kind_name(int i) { return KIND_NAMES[i]; }
static const char *stack_name(int i) { return shape_stack_name((component)i); }

/* "a+b" as bits of the `count` names. */
static wn_code parse_set(unsigned *bits, const char *word, const char *(*name)(int i), int count, const char *what, wn_error *err)
{
	char list[64] = "";
	for (int i = 0; i < count; i++)
		snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? i + 1 < count ? ", " : " or " : "", name(i));
	*bits = 0;
	for (const char *p = word;; p++) {
		const size_t len = strcspn(p, "+");
		int found = -1;
		for (int i = 0; i < count; i++)
			if (strlen(name(i)) == len && !strncmp(name(i), p, len))
				found = i;
		if (found < 0)
			return wn_fail(err, WN_INVALID, "%s: found \"%.*s\", expected %s, joined by +", what, (int)len, p, list);
		if (*bits & 1u << found)
			return wn_fail(err, WN_INVALID, "%s: found \"%s\" twice", what, name(found));
		*bits |= 1u << found;
		p += len;
		if (!*p)
			return WN_OK;
	}
}

/* "iterations 2" or "steps 300"; *value is -1 before. */
static wn_code parse_number(int64_t *value, const char *name, int64_t min, int64_t max, const char **at, const char *end, wn_error *err)
{
	char word[32], more[8], *rest;
	if (*value >= 0)
		return wn_fail(err, WN_INVALID, "found \"%s\" twice", name);
	if (!next_word(at, end, word, sizeof word))
		return wn_fail(err, WN_INVALID, "%s: found nothing, expected a number", name);
	errno = 0;
	const long long v = strtoll(word, &rest, 10);
	if (*rest || errno || v < min || v > max)
		return wn_fail(err, WN_INVALID, "%s: found \"%s\", expected a number from %lld to %lld", name, word, (long long)min,
			       (long long)max);
	if (next_word(at, end, more, sizeof more))
		return wn_fail(err, WN_INVALID, "%s %s: found \"%s\" behind it, expected | or the end", name, word, more);
	*value = v;
	return WN_OK;
}

static wn_code parse_what(stage *out, const char *at, const char *end, wn_error *err)
{
	char word[128];
	if (!next_word(&at, end, word, sizeof word))
		return wn_fail(err, WN_INVALID, "kinds: found nothing, expected blocks, inner, hidden or queries, joined by +");
	wn_code rc = parse_set(&out->kinds, word, kind_name, NUM_KINDS, "kinds", err);
	out->components = ALL_STACKS;
	if (!rc && next_word(&at, end, word, sizeof word))
		rc = parse_set(&out->components, word, stack_name, NUM_COMPONENTS, "components", err);
	if (!rc && next_word(&at, end, word, sizeof word))
		rc = wn_fail(err, WN_INVALID, "components: found \"%s\" behind them, expected | or the end", word);
	if (!rc && (out->kinds & STAGE_QUERIES) && !(out->components & 1u << COMPONENT_QFORMER))
		rc = wn_fail(err, WN_INVALID, "kinds: found \"queries\", which belong to qformer, without that component");
	return rc;
}

wn_code stage_parse(stage *out, const char *line, wn_error *err)
{
	int64_t iterations = -1, steps = -1;
	const char *end = line + strcspn(line, "|"), *at;
	char word[32];
	memset(out, 0, sizeof *out);
	wn_code rc = parse_what(out, line, end, err);
	while (!rc && *end) {
		at = end + 1;
		end = at + strcspn(at, "|");
		if (!next_word(&at, end, word, sizeof word))
			strcpy(word, "nothing");
		if (!strcmp(word, "iterations"))
			rc = parse_number(&iterations, word, 1, MAX_ITERATIONS, &at, end, err);
		else if (!strcmp(word, "steps"))
			rc = parse_number(&steps, word, 0, MAX_STEPS, &at, end, err);
		else
			rc = wn_fail(err, WN_INVALID, "found \"%s\", expected iterations N or steps N", word);
	}
	if (!rc && steps < 0)
		rc = wn_fail(err, WN_INVALID, "steps: found nothing, expected | steps N");
	out->iterations = iterations < 0 ? 1 : (int)iterations;
	out->steps = steps;
	return rc ? wn_fail_prefix(err, "\"%.100s\"", line) : WN_OK;
}

void stage_name(const stage *s, bool dashes, char *buf, size_t size)
{
	const char *join = "";
	size_t used = 0;
	buf[0] = '\0';
	for (int i = 0; i < NUM_KINDS + NUM_COMPONENTS; i++) {
		const bool kind = i < NUM_KINDS;
		const unsigned bits = kind ? s->kinds : s->components == ALL_STACKS ? 0 : s->components;
		const int bit = kind ? i : i - NUM_KINDS;
		if (i == NUM_KINDS)
			join = dashes ? "-" : " ";
		if (!(bits & 1u << bit) || used >= size)
			continue;
		used += (size_t)snprintf(buf + used, size - used, "%s%s", join, kind ? kind_name(bit) : stack_name(bit));
		join = dashes ? "-" : "+";
	}
}

/* ---- shapes on the way ---- */

/* done of total iterations that may touch a number; total 0: none may. */
typedef struct progress {
	int done, total;
} progress;

static int count_at(int from, int to, progress p)
{
	return p.done == p.total ? to : from - (int)lround((double)(from - to) * p.done / p.total);
}

static int width_at(int from, int to, progress p, int multiple)
{
	if (p.done == p.total || from == to)
		return to;
	const double v = from * pow((double)to / from, (double)p.done / p.total);
	const int rounded = (int)lround(v / multiple) * multiple;
	return rounded < to ? to : rounded > from ? from : rounded;
}

static block_widths widths_at(const block_widths *from, const block_widths *to, progress p, int multiple)
{
	return (block_widths){
		.num_heads = width_at(from->num_heads, to->num_heads, p, 1),
		.head_dim = width_at(from->head_dim, to->head_dim, p, 1),
		.cross_num_heads = width_at(from->cross_num_heads, to->cross_num_heads, p, 1),
		.cross_head_dim = width_at(from->cross_head_dim, to->cross_head_dim, p, 1),
		.ffn_dim = width_at(from->ffn_dim, to->ffn_dim, p, multiple),
	};
}

static void stack_at(stack_config *out, const stack_config *from, const stack_config *to, const progress p[NUM_KINDS], int multiple)
{
	const bool same_blocks = from->num_hidden_layers == to->num_hidden_layers;
	const cross_pattern all = cross_pattern_of(from), left = cross_pattern_of(to);
	block_widths from_any, to_any;
	shape_common_widths(&from_any, from);
	shape_common_widths(&to_any, to);
	out->num_hidden_layers = count_at(from->num_hidden_layers, to->num_hidden_layers, p[BLOCKS]);
	out->hidden_size = width_at(from->hidden_size, to->hidden_size, p[HIDDEN], multiple);
	memset(out->blocks, 0, sizeof out->blocks);
	const cross_pattern cross = cross_pattern_between(&all, &left, out->num_hidden_layers);
	for (int i = 0; i < out->num_hidden_layers; i++) {
		const block_widths *a = same_blocks ? &from->blocks[i] : &from_any, *b = same_blocks ? &to->blocks[i] : &to_any;
		out->blocks[i] = widths_at(a, b, p[INNER], multiple);
		if (!cross.has[i])
			out->blocks[i].cross_num_heads = out->blocks[i].cross_head_dim = 0;
	}
}

typedef progress path_progress[NUM_COMPONENTS][NUM_KINDS];

static void shape_at(blip2_config *out, const blip2_config *from, const blip2_config *to, path_progress p, int multiple)
{
	*out = *to;
	for (int c = 0; c < NUM_COMPONENTS; c++)
		stack_at(shape_stack_in(out, (component)c), shape_stack(from, (component)c), shape_stack(to, (component)c), p[c], multiple);
	out->num_query_tokens = count_at(from->num_query_tokens, to->num_query_tokens, p[COMPONENT_QFORMER][QUERIES]);
}

/* ---- what cannot be reached ---- */

/* One number against the other end's; `name` completes "vision." or stands alone. */
static wn_code check_number(int from, int to, int kind, int which, const progress *p, const char *name, wn_error *err)
{
	char where[24];
	snprintf(where, sizeof where, "%s%s", which < 0 ? "" : stack_name(which), which < 0 ? "" : ".");
	wn_code rc = shrink_check(where, name, from, to, err);
	if (!rc && to < from && p->total == 0)
		rc = wn_fail(err, WN_INVALID, "%s%s goes from %d to %d, but no stage has %s of %s", where, name, from, to, kind_name(kind),
			     stack_name(which < 0 ? COMPONENT_QFORMER : which));
	return rc;
}

static wn_code check_widths(const block_widths *from, const block_widths *to, int which, const char *block, const progress *p,
                            wn_error *err)
{
	width_pair w[MAX_WIDTHS];
	wn_code rc = WN_OK;
	for (int i = 0, n = width_pairs(w, from, to); !rc && i < n; i++) {
		char name[48];
		snprintf(name, sizeof name, "%s%s", block, w[i].name);
		rc = check_number(w[i].from, w[i].to, INNER, which, p, name, err);
	}
	return rc;
}

/* Blocks go: all must be alike, and those that are left have the cross-attention that the end has. */
static wn_code check_blocks(const stack_config *from, const stack_config *to, int which, const progress *inner, wn_error *err)
{
	const cross_pattern all = cross_pattern_of(from), left = cross_pattern_of(to);
	block_widths a, b;
	int sources[MAX_BLOCKS];
	if (!shape_common_widths(&a, from) || !shape_common_widths(&b, to))
		return wn_fail(err, WN_UNSUPPORTED,
			       "%s: blocks of different widths, expected one set of widths in a stack that loses blocks (%d to %d)",
			       stack_name(which), from->num_hidden_layers, to->num_hidden_layers);
	wn_code rc = check_widths(&a, &b, which, "", inner, err);
	if (!rc && (rc = blocks_choose(sources, &all, &left, NULL, BLOCKS_FROM_END, err)))
		wn_fail_prefix(err, "%s", stack_name(which));
	return rc;
}

static wn_code check_stack(const stack_config *from, const stack_config *to, int which, const progress p[NUM_KINDS], wn_error *err)
{
	char block[24];
	wn_code rc = check_number(from->num_hidden_layers, to->num_hidden_layers, BLOCKS, which, &p[BLOCKS], "num_hidden_layers", err);
	if (!rc)
		rc = check_number(from->hidden_size, to->hidden_size, HIDDEN, which, &p[HIDDEN], "hidden_size", err);
	if (rc)
		return rc;
	if (from->num_hidden_layers != to->num_hidden_layers)
		return check_blocks(from, to, which, &p[INNER], err);
	for (int i = 0; !rc && i < to->num_hidden_layers; i++) {
		snprintf(block, sizeof block, "blocks[%d].", i);
		rc = check_widths(&from->blocks[i], &to->blocks[i], which, block, &p[INNER], err);
	}
	return rc;
}

static wn_code check_path(const blip2_config *from, const blip2_config *to, path_progress p, wn_error *err)
{
	wn_code rc = shape_check_fixed(to, from, err);
	if (!rc)
		rc = check_number(from->num_query_tokens, to->num_query_tokens, QUERIES, -1, &p[COMPONENT_QFORMER][QUERIES],
		                  "num_query_tokens", err);
	for (int c = 0; !rc && c < NUM_COMPONENTS; c++)
		rc = check_stack(shape_stack(from, (component)c), shape_stack(to, (component)c), c, p[c], err);
	return rc;
}

/* ---- the path ---- */

/* Adds to every number that s may touch: to totals, or to what is done. */
static void advance(path_progress p, const stage *s, int totals, int done)
{
	for (int c = 0; c < NUM_COMPONENTS; c++)
		for (int k = 0; k < NUM_KINDS; k++)
			if ((s->components & 1u << c) && (s->kinds & 1u << k)) {
				p[c][k].total += totals;
				p[c][k].done += done;
			}
}

wn_code stages_path(iteration *out, int *count, const blip2_config *from, const blip2_config *to, const stage *stages, int num_stages,
                    int multiple, wn_error *err)
{
	path_progress p = {0};
	int total = 0;
	*count = 0;
	if (multiple < 1)
		return wn_fail(err, WN_INVALID, "multiple: found %d, expected at least 1", multiple);
	for (int s = 0; s < num_stages; s++) {
		if (stages[s].iterations < 1 || stages[s].iterations > MAX_ITERATIONS - total)
			return wn_fail(err, WN_INVALID, "stages: found %d iterations in stage %d, expected 1 to %d in all stages together",
				       stages[s].iterations, s + 1, MAX_ITERATIONS);
		total += stages[s].iterations;
		advance(p, &stages[s], stages[s].iterations, 0);
	}
	wn_code rc = check_path(from, to, p, err);
	if (rc)
		return rc;
	const blip2_config *before = from;
	for (int s = 0; s < num_stages; s++)
		for (int i = 0; i < stages[s].iterations; i++) {
			iteration *it = &out[*count];
			advance(p, &stages[s], 0, 1);
			shape_at(&it->shape, from, to, p, multiple);
			if (shape_same(&it->shape, before))
				continue;
			it->stage = s;
			it->steps = stages[s].steps;
			before = &it->shape;
			++*count;
		}
	return WN_OK;
}
