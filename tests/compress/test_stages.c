/* Stages: their text, and the shapes on the way from the teacher's to the student's. */
#include "tests/compress/shapes.h"

#include "prune/compress/keep.h"
#include "prune/compress/stages.h"
#include "prune/rng.h"

/* ---- text ---- */

static void lines_are_read(void **state)
{
	static const struct {
		const char *line;
		stage expected;
		const char *name, *dashes;
	} cases[] = {
		{"blocks | steps 300", {STAGE_BLOCKS, 7, 1, 300}, "blocks", "blocks"},
		{"blocks vision+text | iterations 2 | steps 300", {STAGE_BLOCKS, 5, 2, 300}, "blocks vision+text", "blocks-vision-text"},
		{"  hidden+inner\ttext|steps 0|iterations 256  ", {STAGE_INNER | STAGE_HIDDEN, 4, 256, 0}, "inner+hidden text", "inner-hidden-text"},
		{"blocks+inner+hidden+queries qformer+vision+text | iterations 1 | steps 900", {15, 7, 1, 900}, "blocks+inner+hidden+queries",
		 "blocks-inner-hidden-queries"},
		{"queries qformer | steps 5", {STAGE_QUERIES, 2, 1, 5}, "queries qformer", "queries-qformer"},
		/* the schedule in stages.h */
		{"blocks+queries | iterations 3 | steps 300", {STAGE_BLOCKS | STAGE_QUERIES, 7, 3, 300}, "blocks+queries", "blocks-queries"},
		{"inner | iterations 3 | steps 300", {STAGE_INNER, 7, 3, 300}, "inner", "inner"},
		{"hidden | iterations 3 | steps 300", {STAGE_HIDDEN, 7, 3, 300}, "hidden", "hidden"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		stage s;
		char name[64];
		assert_ok(stage_parse(&s, cases[i].line, err));
		assert_int_equal(s.kinds, cases[i].expected.kinds);
		assert_int_equal(s.components, cases[i].expected.components);
		assert_int_equal(s.iterations, cases[i].expected.iterations);
		assert_int_equal(s.steps, cases[i].expected.steps);
		stage_name(&s, false, name, sizeof name);
		assert_string_equal(name, cases[i].name);
		stage_name(&s, true, name, sizeof name);
		assert_string_equal(name, cases[i].dashes);
	}
}

static void mistakes_in_lines_are_named(void **state)
{
	static const struct {
		const char *line, *message;
	} cases[] = {
		{"", "kinds: found nothing, expected blocks"},
		{" | steps 3", "kinds: found nothing"},
		{"layers | steps 3", "\"layers | steps 3\": kinds: found \"layers\", expected blocks, inner, hidden or queries, joined by +"},
		{"blocks+ | steps 3", "kinds: found \"\""},
		{"inner+inner | steps 3", "kinds: found \"inner\" twice"},
		{"blocks audio | steps 3", "components: found \"audio\", expected vision, qformer or text, joined by +"},
		{"blocks vision text | steps 3", "components: found \"text\" behind them"},
		{"queries vision+text | steps 3", "found \"queries\", which belong to qformer"},
		{"blocks", "steps: found nothing"},
		{"blocks | iterations 2", "steps: found nothing"},
		{"blocks | | steps 3", "found \"nothing\", expected iterations N or steps N"},
		{"blocks | epochs 2 | steps 3", "found \"epochs\""},
		{"blocks | steps", "steps: found nothing, expected a number"},
		{"blocks | steps x", "steps: found \"x\", expected a number from 0 to 1000000000"},
		{"blocks | steps 3 | steps 4", "found \"steps\" twice"},
		{"blocks | steps -1", "steps: found \"-1\""},
		{"blocks | steps 99999999999999999999", "steps: found \"99999999999999999999\""},
		{"blocks | steps 3 4", "steps 3: found \"4\" behind it"},
		{"blocks | iterations 0 | steps 3", "iterations: found \"0\", expected a number from 1 to 256"},
		{"blocks | iterations 257 | steps 3", "iterations: found \"257\""},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		stage s;
		assert_refused(WN_INVALID, cases[i].message, stage_parse(&s, cases[i].line, err));
	}
}

static void names_fit_their_buffer(void **state)
{
	const stage s = {.kinds = 15, .components = 5};
	char name[12];
	memset(name, 'x', sizeof name);
	stage_name(&s, false, name, 10);
	assert_string_equal(name, "blocks+in");
	assert_int_equal(name[10], 'x');
}

/* ---- paths ---- */

static int parse_all(stage *out, const char *const *lines)
{
	int n = 0;
	for (; lines[n]; n++)
		assert_ok(stage_parse(&out[n], lines[n], err));
	return n;
}

static iteration path[MAX_ITERATIONS];

static int path_of(const blip2_config *from, const blip2_config *to, const char *const *lines, int multiple)
{
	stage stages[MAX_STAGES];
	int count, n = parse_all(stages, lines);
	assert_ok(stages_path(path, &count, from, to, stages, n, multiple, err));
	return count;
}

static void assert_stack(const stack_config *s, int hidden, int blocks, int heads, int head_dim, int ffn)
{
	assert_int_equal(s->hidden_size, hidden);
	assert_int_equal(s->num_hidden_layers, blocks);
	for (int i = 0; i < blocks; i++) {
		assert_int_equal(s->blocks[i].num_heads, heads);
		assert_int_equal(s->blocks[i].head_dim, head_dim);
		assert_int_equal(s->blocks[i].ffn_dim, ffn);
	}
}

static blip2_config student(void)
{
	blip2_config c = teacher();
	c.vision = stack(96, 3, 2, 48, 192, ACTIVATION_GELU);
	c.qformer = stack(96, 1, 2, 48, 192, ACTIVATION_GELU);
	c.text = stack(128, 2, 2, 64, 256, ACTIVATION_RELU);
	c.num_query_tokens = 8;
	set_cross(&c.qformer, 1, 2, 48);
	return c;
}

static void stages_follow_each_other(void **state)
{
	static const char *const lines[] = {"blocks+queries | iterations 3 | steps 300", "inner | iterations 2 | steps 200",
	                                    "hidden | iterations 2 | steps 100", NULL};
	static const struct {
		int stage, steps, vision_blocks, queries, ffn, heads, head_dim, hidden, text_hidden, text_heads;
	} expected[] = {
		/* 6 -> 3 and 16 -> 8 by equal differences */
		{0, 300, 5, 13, 768, 3, 64, 192, 256, 4},
		{0, 300, 4, 11, 768, 3, 64, 192, 256, 4},
		{0, 300, 3, 8, 768, 3, 64, 192, 256, 4},
		/* 768 -> 192 by equal factors; 3 * sqrt(2/3) = 2.4 heads, 64 * sqrt(3/4) = 55.4 dimensions, 4 * sqrt(1/2) = 2.8 heads */
		{1, 200, 3, 8, 384, 2, 55, 192, 256, 3},
		{1, 200, 3, 8, 192, 2, 48, 192, 256, 2},
		/* 192 * sqrt(1/2) = 135.8, 256 * sqrt(1/2) = 181.0: to multiples of 16 */
		{2, 100, 3, 8, 192, 2, 48, 128, 176, 2},
		{2, 100, 3, 8, 192, 2, 48, 96, 128, 2},
	};
	const blip2_config from = teacher(), to = student();
	assert_int_equal(path_of(&from, &to, lines, 16), sizeof expected / sizeof *expected);
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
		const iteration *it = &path[i];
		assert_int_equal(it->stage, expected[i].stage);
		assert_int_equal(it->steps, expected[i].steps);
		assert_int_equal(it->shape.num_query_tokens, expected[i].queries);
		assert_stack(&it->shape.vision, expected[i].hidden, expected[i].vision_blocks, expected[i].heads, expected[i].head_dim,
		             expected[i].ffn);
		assert_int_equal(it->shape.text.hidden_size, expected[i].text_hidden);
		assert_int_equal(it->shape.text.blocks[0].num_heads, expected[i].text_heads);
		assert_int_equal(it->shape.qformer.blocks[0].cross_num_heads, expected[i].heads);
		assert_int_equal(it->shape.qformer.blocks[0].cross_head_dim, expected[i].head_dim);
		assert_int_equal(it->shape.vocab_size, 512);
		blip2 *m; /* a shape that can be built */
		assert_ok(blip2_create(&m, &it->shape, err));
		blip2_close(&m);
	}
}

static void one_shot_goes_there_at_once(void **state)
{
	static const char *const lines[] = {"blocks+inner+hidden+queries | steps 900", NULL};
	const blip2_config from = teacher(), to = student();
	assert_int_equal(path_of(&from, &to, lines, 16), 1);
	assert_stack(&path[0].shape.vision, 96, 3, 2, 48, 192);
	assert_stack(&path[0].shape.qformer, 96, 1, 2, 48, 192);
	assert_stack(&path[0].shape.text, 128, 2, 2, 64, 256);
	assert_int_equal(path[0].shape.num_query_tokens, 8);
}

/* A number that two stages may touch goes down over both; what did not change is left out. */
static void stages_share_a_number(void **state)
{
	static const char *const lines[] = {"blocks vision | iterations 1 | steps 1", "inner+blocks | iterations 2 | steps 2", NULL};
	static const char *const slow[] = {"queries | iterations 3 | steps 7", "hidden | iterations 3 | steps 8", NULL};
	blip2_config from = teacher(), to = teacher();
	to.vision.num_hidden_layers = 3;
	to.text.num_hidden_layers = 3;
	assert_int_equal(path_of(&from, &to, lines, 16), 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(path[i].shape.vision.num_hidden_layers, 5 - i);
	assert_int_equal(path[0].shape.text.num_hidden_layers, 4);
	assert_int_equal(path[2].shape.text.num_hidden_layers, 3);
	to = teacher();
	to.num_query_tokens = 15;
	assert_int_equal(path_of(&from, &to, slow, 16), 1);
	assert_int_equal(path[0].shape.num_query_tokens, 15);
	assert_int_equal(path[0].steps, 7);
	assert_int_equal(path_of(&from, &from, slow, 16), 0);
	assert_int_equal(path_of(&from, &from, (const char *const[]){NULL}, 16), 0);
}

/* Widths that differ between blocks go each its own way when no block goes. */
static void blocks_keep_their_own_widths(void **state)
{
	static const char *const lines[] = {"inner | iterations 2 | steps 1", NULL};
	blip2_config from = teacher(), to;
	from.vision.blocks[1].ffn_dim = 512;
	to = from;
	to.vision.blocks[1].ffn_dim = 128;
	to.vision.blocks[4].num_heads = 1;
	assert_int_equal(path_of(&from, &to, lines, 16), 2);
	assert_int_equal(path[0].shape.vision.blocks[1].ffn_dim, 256);
	assert_int_equal(path[0].shape.vision.blocks[0].ffn_dim, 768);
	assert_int_equal(path[0].shape.vision.blocks[4].num_heads, 2);
	assert_int_equal(path[1].shape.vision.blocks[1].ffn_dim, 128);
	assert_int_equal(path[1].shape.vision.blocks[4].num_heads, 1);
}

static const char *signs(char buf[MAX_BLOCKS + 1], const stack_config *s)
{
	for (int i = 0; i < s->num_hidden_layers; i++)
		buf[i] = s->blocks[i].cross_num_heads ? '+' : '-';
	buf[s->num_hidden_layers] = '\0';
	return buf;
}

/* A Q-Former of the teacher's widths with cross-attention where `pattern` has a plus. */
static stack_config qformer_of(const char *pattern)
{
	stack_config s = stack(192, (int)strlen(pattern), 3, 64, 768, ACTIVATION_GELU);
	for (int i = 0; pattern[i]; i++)
		if (pattern[i] == '+')
			s.blocks[i].cross_num_heads = 3, s.blocks[i].cross_head_dim = 64;
	return s;
}

/* Where blocks see the image on the way: what the end needs stays, and of the others the first. */
static void cross_attention_leads_to_the_end(void **state)
{
	static const char *const lines[] = {"blocks | iterations 3 | steps 1", "inner | iterations 2 | steps 1", NULL};
	static const struct {
		const char *from, *to, *on_the_way[2];
	} cases[] = {
		{"+-+-+-", "+-+", {"+-+-+", "+-+-"}},
		{"+-+-+-", "-+-", {"+-+-+", "+-+-"}},
		{"+-+-+-", "+++", {"+-+-+", "+-++"}}, /* no frequency has the last but one: the ends have not one in common */
		{"+-+-+-+-+-+-", "+-+", {"+-+-+-+-+", "+-+-+-"}},
		{"+--+--+--", "+--+", {"+--+--+", "+--+--"}},
		{"---+", "+", {"--+", "-+"}}, /* a shape on the way sees the image */
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		blip2_config from = teacher(), to = teacher();
		char found[MAX_BLOCKS + 1];
		from.qformer = qformer_of(cases[i].from);
		to.qformer = qformer_of(cases[i].to);
		for (int b = 0; b < to.qformer.num_hidden_layers; b++) {
			to.qformer.blocks[b].ffn_dim = 384;
			if (to.qformer.blocks[b].cross_num_heads)
				to.qformer.blocks[b].cross_num_heads = 2;
		}
		assert_int_equal(path_of(&from, &to, lines, 16), 5);
		for (int p = 0; p < 5; p++) {
			assert_string_equal(signs(found, &path[p].shape.qformer), p < 2 ? cases[i].on_the_way[p] : cases[i].to);
			assert_int_equal(path[p].shape.qformer.blocks[0].cross_head_dim, found[0] == '+' ? 64 : 0);
		}
		assert_true(shape_same(&path[4].shape, &to));
	}
}

static blip2_config *with_qformer(blip2_config *c, const char *pattern)
{
	c->qformer = qformer_of(pattern);
	return c;
}

static void impossible_cross_attention_is_shown(void **state)
{
	static const char *const lines[] = {"blocks+inner | iterations 2 | steps 1", NULL};
	blip2_config from = teacher(), to = teacher();
	stage stages[MAX_STAGES];
	int count, n = parse_all(stages, lines);
	assert_refused(WN_INVALID, "qformer: cross-attention: found blocks --+, expected what can be left of the source's +-+- (+: has it)",
	               stages_path(path, &count, with_qformer(&from, "+-+-"), with_qformer(&to, "--+"), stages, n, 16, err));
	assert_refused(WN_INVALID, "qformer.cross_num_heads: found 0, expected 1 to the source's 3",
	               stages_path(path, &count, &from, with_qformer(&to, "--"), stages, n, 16, err));
}

/* What is planned is what comes: every iteration of a path can be chosen from the one before, whatever the scores, and every
 * block that is kept has the cross-attention that the shape says. A loadable end is reached by loadable shapes. */
static void every_step_can_be_taken(void **state)
{
	static const char *const lines[] = {"blocks+queries | iterations 4 | steps 1", "inner+hidden | iterations 2 | steps 1", NULL};
	rng r = rng_open(8, 0, 0, 0);
	for (int round = 0; round < 60; round++) {
		blip2_config from = teacher(), to, before;
		char pattern[16] = "";
		const int blocks = 1 + (int)rng_below(&r, 12), frequency = 1 + (int)rng_below(&r, 4), by_frequency = (int)rng_below(&r, 2);
		for (int i = 0; i < blocks; i++)
			pattern[i] = (by_frequency ? i % frequency == 0 : i == 0 || rng_below(&r, 2)) ? '+' : '-';
		from.qformer = qformer_of(pattern);
		from.cross_attention_frequency = hf_config_cross_frequency(&from);
		to = from;
		to.vision.num_hidden_layers = 1 + (int)rng_below(&r, 6);
		to.qformer.num_hidden_layers = 1 + (int)rng_below(&r, (uint64_t)blocks); /* the first ones: the first has it */
		to.text.hidden_size = 128;
		to.num_query_tokens = 1 + (int)rng_below(&r, 16);
		for (int i = 0; i < to.text.num_hidden_layers; i++)
			to.text.blocks[i].ffn_dim = 256;
		const int count = path_of(&from, &to, lines, 16);
		before = from;
		for (int i = 0; i < count; i++) {
			structure_scores s;
			keep k;
			assert_ok(structure_scores_open(&s, &before, err));
			structure_scores_random(&s, rng_next(&r));
			assert_ok(keep_choose(&k, &s, &path[i].shape, rng_below(&r, 2) ? BLOCKS_FROM_END : BLOCKS_BY_IMPORTANCE, err));
			assert_true(shape_same(&k.to, &path[i].shape));
			for (int b = 0; b < k.to.qformer.num_hidden_layers; b++)
				assert_int_equal(before.qformer.blocks[k.blocks[COMPONENT_QFORMER][b].source].cross_num_heads > 0,
				                 path[i].shape.qformer.blocks[b].cross_num_heads > 0);
			if (by_frequency)
				assert_true(hf_config_cross_frequency(&path[i].shape) > 0);
			before = path[i].shape;
			keep_close(&k);
			structure_scores_close(&s);
		}
		assert_true(shape_same(&before, &to));
	}
}

static int *number(blip2_config *c, int i)
{
	stack_config *s = shape_stack_in(c, (component)(i % 3));
	int *all[] = {&s->num_hidden_layers, &s->hidden_size, &s->blocks[0].ffn_dim, &s->blocks[0].num_heads, &s->blocks[0].head_dim};
	return i < 15 ? all[i / 3] : &c->num_query_tokens;
}

/* Every number goes down only, stays between both ends, is a multiple where it is a width on the way, and arrives. */
static void random_paths_go_down_and_arrive(void **state)
{
	rng r = rng_open(7, 0, 0, 0);
	for (int round = 0; round < 300; round++) {
		blip2_config from = teacher(), to = teacher(), before;
		stage stages[8];
		int count, n = 1 + (int)rng_below(&r, 7);
		for (int c = 0; c < NUM_COMPONENTS; c++) {
			stack_config *s = shape_stack_in(&to, (component)c);
			*s = stack(1 + (int)rng_below(&r, (uint64_t)s->hidden_size), 1 + (int)rng_below(&r, (uint64_t)s->num_hidden_layers),
			           1 + (int)rng_below(&r, 3), 1 + (int)rng_below(&r, 64), 1 + (int)rng_below(&r, 768), s->activation);
		}
		set_cross(&to.qformer, 1, to.qformer.blocks[0].num_heads, to.qformer.blocks[0].head_dim);
		to.num_query_tokens = 1 + (int)rng_below(&r, 16);
		for (int i = 0; i < n; i++)
			stages[i] = (stage){1 + (unsigned)rng_below(&r, 15), 7, 1 + (int)rng_below(&r, 9), 1};
		stages[n++] = (stage){15, 7, 1 + (int)rng_below(&r, 3), 1};
		const int multiple = 1 << rng_below(&r, 5);
		assert_ok(stages_path(path, &count, &from, &to, stages, n, multiple, err));
		before = from;
		for (int i = 0; i < count; i++) {
			bool changed = false;
			for (int k = 0; k < 16; k++) {
				const int first = *number(&from, k), last = *number(&to, k), was = *number(&before, k), now = *number(&path[i].shape, k);
				assert_in_range(now, last, was);
				if (k / 3 == 1 || k / 3 == 2)
					assert_true(now % multiple == 0 || now == first || now == last);
				if (i + 1 == count)
					assert_int_equal(now, last);
				changed |= now != was;
			}
			assert_true(changed);
			before = path[i].shape;
		}
	}
}

static void impossible_paths_are_named(void **state)
{
	static const char *const blocks[] = {"blocks vision+qformer | steps 1", NULL};
	static const char *const all[] = {"blocks+inner+hidden+queries | steps 1", NULL};
	static const char *const long_[] = {"blocks | iterations 200 | steps 1", "inner | iterations 57 | steps 1", NULL};
	static const struct {
		wn_code code;
		int change; /* see below */
		const char *const *lines;
		int multiple;
		const char *message;
	} cases[] = {
		{WN_INVALID, 0, blocks, 16, "text.num_hidden_layers goes from 4 to 3, but no stage has blocks of text"},
		{WN_INVALID, 1, blocks, 16, "vision.hidden_size goes from 192 to 96, but no stage has hidden of vision"},
		{WN_INVALID, 2, blocks, 16, "text.blocks[2].ffn_dim goes from 1024 to 512, but no stage has inner of text"},
		{WN_INVALID, 3, blocks, 16, "num_query_tokens goes from 16 to 4, but no stage has queries of qformer"},
		{WN_INVALID, 4, all, 16, "vision.num_hidden_layers: found 7, expected 1 to the source's 6"},
		{WN_INVALID, 5, all, 16, "vision.blocks[0].ffn_dim: found 800, expected 1 to the source's 768"},
		{WN_INVALID, 6, all, 16, "qformer.blocks[1].cross_num_heads: found 0, expected 1 to the source's 3"},
		{WN_INVALID, 7, all, 16, "num_query_tokens: found 17, expected 1 to the source's 16"},
		{WN_INVALID, 8, all, 16, "vocab_size: found 2000, expected the source's 512"},
		{WN_UNSUPPORTED, 9, all, 16, "vision: blocks of different widths"},
		{WN_INVALID, 10, all, 16, "vision.num_heads: found 4, expected 1 to the source's 3"},
		{WN_INVALID, 11, all, 0, "multiple: found 0"},
		{WN_INVALID, 11, long_, 16, "stages: found 57 iterations in stage 2, expected 1 to 256"},
		{WN_INVALID, 12, all, 16, "text.hidden_size: found 0"},
		{WN_INVALID, 13, all, 16, "text.activation: found 1, expected the source's 2"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		blip2_config from = teacher(), to = teacher();
		stage stages[MAX_STAGES];
		int count = 99, n = parse_all(stages, cases[i].lines);
		switch (cases[i].change) {
		case 0: to.text.num_hidden_layers = 3; break;
		case 1: to.vision.hidden_size = 96; break;
		case 2: to.text.blocks[2].ffn_dim = 512; break;
		case 3: to.num_query_tokens = 4; break;
		case 4: to.vision = stack(192, 7, 3, 64, 768, ACTIVATION_GELU); break;
		case 5: to.vision = stack(192, 6, 3, 64, 800, ACTIVATION_GELU); break;
		case 6: to.qformer.blocks[1].cross_num_heads = to.qformer.blocks[1].cross_head_dim = 0; break;
		case 7: to.num_query_tokens = 17; break;
		case 8: to.vocab_size = 2000; break;
		case 9: from.vision.blocks[3].ffn_dim = 700, to.vision.num_hidden_layers = 5; break;
		case 10: to.vision = stack(192, 5, 4, 64, 768, ACTIVATION_GELU); break;
		case 12: to.text.hidden_size = 0; break;
		case 13: to.text.activation = ACTIVATION_GELU; break;
		}
		assert_refused(cases[i].code, cases[i].message, stages_path(path, &count, &from, &to, stages, n, cases[i].multiple, err));
		assert_int_equal(count, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_are_read),
		cmocka_unit_test(mistakes_in_lines_are_named),
		cmocka_unit_test(names_fit_their_buffer),
		cmocka_unit_test(stages_follow_each_other),
		cmocka_unit_test(one_shot_goes_there_at_once),
		cmocka_unit_test(stages_share_a_number),
		cmocka_unit_test(blocks_keep_their_own_widths),
		cmocka_unit_test(cross_attention_leads_to_the_end),
		cmocka_unit_test(impossible_cross_attention_is_shown),
		cmocka_unit_test(every_step_can_be_taken),
		cmocka_unit_test(random_paths_go_down_and_arrive),
		cmocka_unit_test(impossible_paths_are_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
