/* block_choice.c: see block_choice.h. */
#include "prune/compress/block_choice.h"

#include <math.h>
#include <string.h>

cross_pattern cross_pattern_of(const stack_config *s)
{
	cross_pattern p = {.count = s->num_hidden_layers};
	for (int i = 0; i < p.count; i++)
		p.has[i] = s->blocks[i].cross_num_heads > 0;
	return p;
}

/* "+-+-": a sign a block. */
static const char *show(char buf[MAX_BLOCKS + 1], const cross_pattern *p)
{
	for (int i = 0; i < p->count; i++)
		buf[i] = p->has[i] ? '+' : '-';
	buf[p->count] = '\0';
	return buf;
}

/* ---- choosing ---- */

/* most[i][j]: the highest score that the blocks from i on can have together as the blocks from j on of the result. */
typedef struct best_sums {
	double most[MAX_BLOCKS + 1][MAX_BLOCKS + 1];
} best_sums;

static double sum_with(const best_sums *b, const cross_pattern *from, const cross_pattern *to, const double *scores, int i, int j)
{
	return from->has[i] == to->has[j] ? (scores ? scores[i] : 0) + b->most[i + 1][j + 1] : -INFINITY;
}

/* Fills b; returns the score of the best choice, -INFINITY when there is none. */
static double sum_up(best_sums *b, const cross_pattern *from, const cross_pattern *to, const double *scores)
{
	double best = -INFINITY;
	for (int j = 0; j <= to->count; j++)
		b->most[from->count][j] = j == to->count ? 0 : -INFINITY;
	for (int i = from->count - 1; i >= 0; i--) {
		b->most[i][to->count] = 0;
		for (int j = to->count - 1; j >= 0; j--)
			b->most[i][j] = fmax(b->most[i + 1][j], sum_with(b, from, to, scores, i, j));
		best = b->most[i][0];
	}
	return best;
}

wn_code blocks_choose(int *sources, const cross_pattern *from, const cross_pattern *to, const double *scores, block_choice choice,
                      wn_error *err)
{
	best_sums b;
	const double *s = choice == BLOCKS_FROM_END ? NULL : scores; /* all equal: the lowest indices */
	if (sum_up(&b, from, to, s) == -INFINITY) {
		char wanted[MAX_BLOCKS + 1], there[MAX_BLOCKS + 1];
		return wn_fail(err, WN_INVALID, "cross-attention: found blocks %s, expected what can be left of the source's %s (+: has it)",
		               show(wanted, to), show(there, from));
	}
	for (int i = 0, j = 0; j < to->count; i++)
		if (sum_with(&b, from, to, s, i, j) >= b.most[i + 1][j])
			sources[j++] = i;
	return WN_OK;
}

/* ---- patterns ---- */

static bool can_be_left(const cross_pattern *from, const cross_pattern *to)
{
	int found = 0;
	for (int i = 0; i < from->count && found < to->count; i++)
		found += from->has[i] == to->has[found];
	return found == to->count;
}

static cross_pattern of_frequency(int count, int frequency)
{
	cross_pattern p = {.count = count};
	for (int i = 0; i < count; i += frequency)
		p.has[i] = true;
	return p;
}

static bool same(const cross_pattern *a, const cross_pattern *b) { return !memcmp(a, b, sizeof *a); }

bool cross_pattern_plan(cross_pattern *out, const cross_pattern *from, int count, bool loadable)
{
	int first = 0, crossing = 0;
	while (first < from->count && !from->has[first])
		first++;
	*out = (cross_pattern){.count = count};
	memcpy(out->has, from->has, (size_t)count * sizeof *out->has);
	if (first == from->count)
		return true; /* a stack without cross-attention */
	for (int i = 0; i < count; i++)
		crossing += out->has[i];
	if (!crossing)
		out->has[count - 1] = true;
	if (!loadable)
		return true;
	for (int f = 1; f <= count; f++) {
		const cross_pattern p = of_frequency(count, f);
		if (same(&p, out))
			return true;
	}
	for (int f = 1; f <= count; f++) {
		const cross_pattern p = of_frequency(count, f);
		if (can_be_left(from, &p)) {
			*out = p;
			return true;
		}
	}
	return false;
}

cross_pattern cross_pattern_between(const cross_pattern *from, const cross_pattern *to, int count)
{
	cross_pattern out = {.count = count};
	int kept[MAX_BLOCKS], others = count - to->count;
	bool stays[MAX_BLOCKS] = {false};
	blocks_choose(kept, from, to, NULL, BLOCKS_FROM_END, NULL);
	for (int i = 0; i < to->count; i++)
		stays[kept[i]] = true;
	for (int i = 0, next = 0; i < from->count; i++)
		if (stays[i] || others-- > 0)
			out.has[next++] = from->has[i];
	return out;
}
