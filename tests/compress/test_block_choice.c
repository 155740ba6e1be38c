/* Which blocks stay, against trying all ways, and patterns of cross-attention of every small stack. */
#include "tests/prune/support.h"

#include "prune/compress/block_choice.h"
#include "prune/rng.h"

/* ---- patterns as bits: block i has cross-attention when bit i is set ---- */

static cross_pattern of_bits(unsigned bits, int count)
{
	cross_pattern p = {.count = count};
	for (int i = 0; i < count; i++)
		p.has[i] = bits >> i & 1;
	return p;
}

static cross_pattern of_signs(const char *signs)
{
	cross_pattern p = {.count = (int)strlen(signs)};
	for (int i = 0; i < p.count; i++)
		p.has[i] = signs[i] == '+';
	return p;
}

static bool same(const cross_pattern *a, const cross_pattern *b)
{
	for (int i = 0; i < a->count; i++)
		if (a->has[i] != b->has[i])
			return false;
	return a->count == b->count;
}

/* The blocks in `mask` of `from`. */
static cross_pattern left_of(const cross_pattern *from, unsigned mask)
{
	cross_pattern p = {0};
	for (int i = 0; i < from->count; i++)
		if (mask >> i & 1)
			p.has[p.count++] = from->has[i];
	return p;
}

static bool can_be_left(const cross_pattern *from, const cross_pattern *to)
{
	for (unsigned mask = 0; mask < 1u << from->count; mask++) {
		const cross_pattern p = left_of(from, mask);
		if (same(&p, to))
			return true;
	}
	return false;
}

static int frequency_of(const cross_pattern *p)
{
	for (int f = 1; f <= p->count; f++) {
		bool fits = true;
		for (int i = 0; i < p->count; i++)
			fits = fits && p->has[i] == (i % f == 0);
		if (fits)
			return f;
	}
	return 0;
}

static bool has_any(const cross_pattern *p)
{
	for (int i = 0; i < p->count; i++)
		if (p->has[i])
			return true;
	return false;
}

/* ---- choosing ---- */

static double sum_of(const double *scores, unsigned mask)
{
	double sum = 0;
	for (int i = 0; mask >> i; i++)
		sum += mask >> i & 1 ? scores[i] : 0;
	return sum;
}

/* Do a's blocks, as ascending lists of one length, come before b's? At the first that differ, a has the lower one. */
static bool comes_before(unsigned a, unsigned b)
{
	const unsigned differ = a ^ b;
	return a & (differ & (0u - differ));
}

/* Small whole scores: sums are exact, and many are equal. */
static void chosen_blocks_are_the_best_with_the_pattern(void **state)
{
	rng r = rng_open(30, 0, 0, 0);
	int chosen = 0, refused = 0;
	for (int round = 0; round < 4000; round++) {
		const int count = 1 + (int)rng_below(&r, 8), left = 1 + (int)rng_below(&r, (uint64_t)count);
		const block_choice choice = rng_below(&r, 2) ? BLOCKS_FROM_END : BLOCKS_BY_IMPORTANCE;
		const cross_pattern from = of_bits((unsigned)rng_below(&r, 1u << count), count);
		const cross_pattern to = of_bits((unsigned)rng_below(&r, 1u << left), left);
		double scores[8];
		int sources[MAX_BLOCKS];
		unsigned best = 0, got = 0;
		for (int i = 0; i < count; i++)
			scores[i] = (double)rng_below(&r, 6);
		for (unsigned mask = 1; mask < 1u << count; mask++) {
			const cross_pattern p = left_of(&from, mask);
			const double more = choice == BLOCKS_FROM_END ? 0 : sum_of(scores, mask) - sum_of(scores, best);
			if (same(&p, &to) && (!best || more > 0 || (more == 0 && comes_before(mask, best))))
				best = mask;
		}
		if (!best) {
			assert_refused(WN_INVALID, "cross-attention: found blocks ", blocks_choose(sources, &from, &to, scores, choice, err));
			refused++;
			continue;
		}
		assert_ok(blocks_choose(sources, &from, &to, choice == BLOCKS_FROM_END ? NULL : scores, choice, err));
		for (int i = 0; i < left; i++) {
			assert_true(i == 0 || sources[i] > sources[i - 1]);
			got |= 1u << sources[i];
		}
		assert_int_equal(got, best);
		chosen++;
	}
	assert_true(chosen > 500 && refused > 500);
}

/* As many blocks as there can be, of one kind: the plain case. */
static void the_deepest_stack_loses_its_least(void **state)
{
	cross_pattern from = {.count = MAX_BLOCKS}, to = {.count = MAX_BLOCKS - 3};
	double scores[MAX_BLOCKS];
	int sources[MAX_BLOCKS];
	for (int i = 0; i < MAX_BLOCKS; i++)
		scores[i] = 1 + i % 7;
	scores[0] = scores[50] = scores[MAX_BLOCKS - 1] = 0.5;
	assert_ok(blocks_choose(sources, &from, &to, scores, BLOCKS_BY_IMPORTANCE, err));
	for (int i = 0; i < to.count; i++)
		assert_int_equal(sources[i], i + 1 + (i >= 49));
	from.has[3] = true;
	to.has[3] = true;
	assert_ok(blocks_choose(sources, &from, &to, NULL, BLOCKS_FROM_END, err));
	assert_int_equal(sources[to.count - 1], to.count - 1);
}

static void both_patterns_are_shown(void **state)
{
	const cross_pattern from = of_signs("+-+-"), to = of_signs("--+");
	int sources[MAX_BLOCKS];
	assert_refused(WN_INVALID, "cross-attention: found blocks --+, expected what can be left of the source's +-+- (+: has it)",
	               blocks_choose(sources, &from, &to, NULL, BLOCKS_FROM_END, err));
}

/* ---- patterns ---- */

/* Every stack of up to 8 blocks, every number of them left. */
static void plans_can_be_had_and_loaded(void **state)
{
	for (int count = 1; count <= 8; count++)
		for (unsigned bits = 0; bits < 1u << count; bits++) {
			const cross_pattern from = of_bits(bits, count);
			for (int left = 1; left <= count; left++) {
				const cross_pattern first = of_bits(bits, left);
				cross_pattern p;
				assert_true(cross_pattern_plan(&p, &from, left, false));
				assert_int_equal(p.count, left);
				assert_true(can_be_left(&from, &p));
				assert_int_equal(has_any(&p), has_any(&from));
				if (has_any(&first) || !has_any(&from))
					assert_true(same(&p, &first));
				const bool found = cross_pattern_plan(&p, &from, left, true);
				bool any = !has_any(&from);
				for (int f = 1; f <= left; f++) {
					cross_pattern wanted = {.count = left};
					for (int i = 0; i < left; i += f)
						wanted.has[i] = true;
					any = any || can_be_left(&from, &wanted);
				}
				assert_int_equal(found, any);
				if (!found)
					continue;
				assert_true(can_be_left(&from, &p));
				assert_true(!has_any(&from) || frequency_of(&p) > 0);
				if (frequency_of(&from) > 0) /* and the teacher's own, if it has one */
					assert_true(same(&p, &first));
			}
		}
}

/* Every pair of ends: each step holds the next, and a common frequency holds all the way. */
static void ways_lead_from_end_to_end(void **state)
{
	for (int count = 1; count <= 6; count++)
		for (unsigned bits = 0; bits < 1u << count; bits++)
			for (unsigned mask = 1; mask < 1u << count; mask++) {
				const cross_pattern from = of_bits(bits, count), to = left_of(&from, mask);
				cross_pattern before = from;
				const cross_pattern first = of_bits(bits, to.count);
				const bool one = frequency_of(&from) > 0 && same(&to, &first);
				for (int left = count; left >= to.count; left--) {
					const cross_pattern p = cross_pattern_between(&from, &to, left);
					assert_int_equal(p.count, left);
					assert_true(can_be_left(&before, &p) && can_be_left(&p, &to));
					if (one)
						assert_true(frequency_of(&p) > 0);
					before = p;
				}
				assert_true(same(&before, &to));
				const cross_pattern all = cross_pattern_between(&from, &to, count);
				assert_true(same(&all, &from));
			}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chosen_blocks_are_the_best_with_the_pattern),
		cmocka_unit_test(the_deepest_stack_loses_its_least),
		cmocka_unit_test(both_patterns_are_shown),
		cmocka_unit_test(plans_can_be_had_and_loaded),
		cmocka_unit_test(ways_lead_from_end_to_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
