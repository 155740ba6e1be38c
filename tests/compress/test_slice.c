/* Slicing: what contributes nothing may go without changing an answer, and everything else comes from its own place. */
#include "tests/compress/small_models.h"

#include "model/checkpoint.h"
#include "prune/compress/slice.h"

/* ---- everything ---- */

static void keeping_everything_changes_no_bit(void **state)
{
	for (unsigned v = 0; v < 4; v++) {
		rng r = rng_open(v, 20, 0, 0);
		const blip2_config c = random_shape(&r, v);
		blip2 *m = random_model(&r, &c), *same;
		keep k;
		random_keep(&r, &k, &c, &c);
		assert_ok(slice_model(&same, m, &k, err));
		assert_int_equal(blip2_weights_count(same), blip2_weights_count(m));
		assert_memory_equal(blip2_weights(same), blip2_weights(m), blip2_weights_count(m) * sizeof(float));
		keep_close(&k);
		blip2_close(&same);
		blip2_close(&m);
	}
}

/* ---- by name ---- */

/* Row `at` of the text's positions, two offset rows first: kept queries bring theirs, the text moves up by as many as went, and
 * the rows of those that went are the last. */
static int position_row(const keep *k, int64_t at, int64_t length)
{
	const int queries = k->from.num_query_tokens, left = k->to.num_query_tokens, gone = queries - left;
	if (at < 2)
		return (int)at;
	if (at - 2 < left)
		return 2 + k->queries[at - 2];
	if (at + gone < length)
		return (int)at + gone;
	int64_t nth = at - (length - gone);
	for (int q = 0, j = 0; q < queries; q++) {
		if (j < left && k->queries[j] == q)
			j++;
		else if (nth-- == 0)
			return 2 + q;
	}
	fail_msg("row %d of %d", (int)at, (int)length);
	return -1;
}

static int source_index(const keep *k, const named *n, char letter, int64_t at, int64_t length, int64_t from_length)
{
	const block_keep *b = n->block < 0 ? NULL : &k->blocks[n->stack][n->block];
	switch (letter) {
	case 'v': return k->hidden[0][at];
	case 'q': return k->hidden[1][at];
	case 't': return k->hidden[2][at];
	case 'n': return k->queries[at];
	case 'p': return position_row(k, at, length);
	case 'f': return b->ffn[at];
	case 'a': return b->self.qk[at];
	case 'b': return b->self.v[at];
	case 'c': return b->cross.qk[at];
	case 'd': return b->cross.v[at];
	case 'Q':
		if (at < length / 3)
			return b->self.qk[at];
		if (at < length / 3 * 2)
			return b->self.qk[at - length / 3] + (int)from_length / 3;
		return b->self.v[at - length / 3 * 2] + (int)from_length / 3 * 2;
	default: return (int)at;
	}
}

static void assert_gathered(const blip2 *small, const blip2 *m, const keep *k, const char *name)
{
	const param *p = blip2_find_param(small, name);
	const named n = find_named(name);
	const component c = n.stack;
	char source_name[160];
	snprintf(source_name, sizeof source_name, n.format, n.block < 0 ? 0 : k->blocks[c][n.block].source);
	const param *source = blip2_find_param(m, source_name);
	assert_non_null(source);
	double scale = 1;
	if (n.query) {
		const block_widths *to = &shape_stack(&k->to, c)->blocks[n.block];
		const block_widths *from = &shape_stack(&k->from, c)->blocks[k->blocks[c][n.block].source];
		scale = n.axes[0] == 'c' ? sqrt((double)to->cross_head_dim / from->cross_head_dim)
		                         : sqrt((double)to->head_dim / from->head_dim);
	}
	for (size_t e = 0; e < p->count; e++) {
		int64_t at[4];
		size_t place = 0;
		coordinates(at, p, e);
		for (int a = 0; a < p->rank; a++)
			place = place * (size_t)source->shape[a] +
			        (size_t)source_index(k, &n, n.axes[a], at[a], p->shape[a], source->shape[a]);
		const bool scaled = n.query && (n.axes[0] != 'Q' || at[0] < p->shape[0] / 3);
		const double want = (double)blip2_weights((blip2 *)m)[source->offset + place] * (scaled ? scale : 1);
		assert_close(blip2_weights((blip2 *)small)[p->offset + e], want, scaled && scale < 1 ? 1e-6 : 0, name, e);
	}
}

static void every_weight_comes_from_its_place(void **state)
{
	for (unsigned v = 0; v < 12; v++) {
		rng r = rng_open(v, 21, 0, 0);
		const blip2_config c = random_shape(&r, v), to = random_target(&r, &c);
		blip2 *m = random_model(&r, &c), *small;
		keep k;
		random_keep(&r, &k, &c, &to);
		assert_ok(slice_model(&small, m, &k, err));
		for (size_t i = 0; i < blip2_num_params(small); i++)
			assert_gathered(small, m, &k, blip2_param(small, i)->name);
		for (int s = 0; s < NUM_COMPONENTS; s++)
			assert_int_equal(shape_stack(blip2_get_config(small), each(s))->hidden_size,
			                 shape_stack(&to, each(s))->hidden_size);
		assert_int_equal(blip2_get_config(small)->num_query_tokens, to.num_query_tokens);
		inputs in;
		random_inputs(&r, &in, &c);
		float *logits = text_logits(small, &in);
		assert_true(difference(logits, logits, (size_t)(SAMPLES * TOKENS * c.vocab_size)) == 0); /* finite */
		free(logits);
		inputs_close(&in);
		keep_close(&k);
		blip2_close(&small);
		blip2_close(&m);
	}
}

/* ---- what contributes nothing may go ---- */

enum { DROP_FFN = 1, DROP_HEADS = 2, DROP_DIMS = 4, DROP_BLOCKS = 8, DROP_ALL = 15, WIDEST = 64, DEEPEST = 8 };

typedef struct attention_plan {
	bool qk[WIDEST], v[WIDEST]; /* stays */
	int heads, dim;             /* left */
} attention_plan;

typedef struct block_plan {
	bool stays, ffn[WIDEST];
	int ffn_left;
	attention_plan self, cross;
} block_plan;

typedef struct plan {
	block_plan blocks[NUM_COMPONENTS][DEEPEST];
	int left[NUM_COMPONENTS];
} plan;

/* `left` of `count` flags, at random. */
static void pick(rng *r, bool *out, int count, int left)
{
	uint32_t order[WIDEST];
	rng_permutation(r, order, (size_t)count);
	for (int i = 0; i < count; i++)
		out[order[i]] = i < left;
}

static void plan_attention(rng *r, attention_plan *p, int heads, int dim, unsigned kinds)
{
	bool stays[WIDEST];
	p->heads = kinds & DROP_HEADS ? between(r, 1, heads) : heads;
	p->dim = kinds & DROP_DIMS ? between(r, 1, dim) : dim;
	pick(r, stays, heads, p->heads);
	for (int h = 0; h < heads; h++) {
		pick(r, p->qk + h * dim, dim, stays[h] ? p->dim : 0);
		pick(r, p->v + h * dim, dim, stays[h] ? p->dim : 0);
	}
}

static void plan_all(rng *r, plan *p, const blip2_config *c, unsigned kinds)
{
	memset(p, 0, sizeof *p);
	for (int s = 0; s < NUM_COMPONENTS; s++) {
		const stack_config *stack = shape_stack(c, each(s));
		bool stays[DEEPEST];
		p->left[s] = kinds & DROP_BLOCKS ? between(r, 1, stack->num_hidden_layers - 1) : stack->num_hidden_layers;
		pick(r, stays, stack->num_hidden_layers, p->left[s]);
		if (s == COMPONENT_QFORMER && !stays[0]) { /* the first has cross-attention, and one of those must stay */
			for (int i = 0; i < stack->num_hidden_layers && !stays[0]; i++)
				if (stays[i])
					stays[i] = false, stays[0] = true;
		}
		for (int i = 0; i < stack->num_hidden_layers; i++) {
			const block_widths *w = &stack->blocks[i];
			block_plan *b = &p->blocks[s][i];
			b->stays = stays[i];
			b->ffn_left = kinds & DROP_FFN ? between(r, 1, w->ffn_dim) : w->ffn_dim;
			pick(r, b->ffn, w->ffn_dim, b->ffn_left);
			plan_attention(r, &b->self, w->num_heads, w->head_dim, kinds);
			if (w->cross_num_heads)
				plan_attention(r, &b->cross, w->cross_num_heads, w->cross_head_dim, kinds);
		}
	}
}

/* Scores under which exactly the plan is chosen: what stays scores above 1, what goes below 0.01 altogether. */
static void plant(rng *r, double *scores, const bool *stays, int count)
{
	for (int i = 0; i < count; i++)
		scores[i] = stays[i] ? rng_uniform(r, 1, 2) : rng_uniform(r, 0, 0.0001);
}

static void choose_plan(rng *r, keep *k, const plan *p, const blip2_config *c)
{
	structure_scores s;
	blip2_config to = *c;
	assert_ok(structure_scores_open(&s, c, err));
	structure_scores_random(&s, 1); /* hidden dimensions and queries all stay */
	for (int x = 0; x < NUM_COMPONENTS; x++) {
		const stack_config *stack = shape_stack(c, each(x));
		int next = 0;
		for (int i = 0; i < stack->num_hidden_layers; i++) {
			const block_widths *w = &stack->blocks[i];
			const block_plan *b = &p->blocks[x][i];
			block_scores *to_plant = &s.blocks[x][i];
			plant(r, &to_plant->total, &b->stays, 1);
			plant(r, to_plant->ffn, b->ffn, w->ffn_dim);
			plant(r, to_plant->self_qk, b->self.qk, w->num_heads * w->head_dim);
			plant(r, to_plant->self_v, b->self.v, w->num_heads * w->head_dim);
			if (w->cross_num_heads) {
				plant(r, to_plant->cross_qk, b->cross.qk, w->cross_num_heads * w->cross_head_dim);
				plant(r, to_plant->cross_v, b->cross.v, w->cross_num_heads * w->cross_head_dim);
			}
			if (b->stays)
				stack_at(&to, x)->blocks[next++] =
				        (block_widths){b->self.heads, b->self.dim, b->cross.heads, b->cross.dim, b->ffn_left};
		}
		stack_at(&to, x)->num_hidden_layers = p->left[x];
	}
	assert_ok(keep_choose(k, &s, &to, BLOCKS_BY_IMPORTANCE, err));
	structure_scores_close(&s);
}

static void assert_listed(const int *list, int count, const bool *stays, int of)
{
	int next = 0;
	for (int i = 0; i < of; i++)
		if (stays[i]) {
			assert_true(next < count);
			assert_int_equal(list[next++], i);
		}
	assert_int_equal(next, count);
}

/* keep_choose found the plan. */
static void assert_plan(const keep *k, const plan *p)
{
	for (int x = 0; x < NUM_COMPONENTS; x++)
		for (int i = 0; i < p->left[x]; i++) {
			const block_keep *b = &k->blocks[x][i];
			const block_plan *want = &p->blocks[x][b->source];
			const block_widths *from = &shape_stack(&k->from, each(x))->blocks[b->source];
			assert_true(want->stays);
			assert_listed(b->ffn, want->ffn_left, want->ffn, from->ffn_dim);
			assert_listed(b->self.qk, want->self.heads * want->self.dim, want->self.qk,
			              from->num_heads * from->head_dim);
			assert_listed(b->self.v, want->self.heads * want->self.dim, want->self.v, from->num_heads * from->head_dim);
			assert_listed(b->cross.qk, want->cross.heads * want->cross.dim, want->cross.qk,
			              from->cross_num_heads * from->cross_head_dim);
			assert_listed(b->cross.v, want->cross.heads * want->cross.dim, want->cross.v,
			              from->cross_num_heads * from->cross_head_dim);
		}
}

static const struct {
	char block[48], query[32], key[32], out[32], fc2[24];
} NAMES[NUM_COMPONENTS] = {
        {"vision_model.encoder.layers.%d.", "self_attn.qkv", "self_attn.qkv", "self_attn.projection", "mlp.fc2"},
        {"qformer.encoder.layer.%d.", "attention.attention.query", "attention.attention.key", "attention.output.dense",
         "output_query.dense"},
        {"language_model.model.decoder.layers.%d.", "self_attn.q_proj", "self_attn.k_proj", "self_attn.out_proj", "fc2"},
};

static const param *part(const blip2 *m, int stack, int block, const char *name, const char *kind)
{
	char prefix[64], full[160];
	snprintf(prefix, sizeof prefix, NAMES[stack].block, block);
	snprintf(full, sizeof full, "%s%s%s", prefix, name, kind);
	return blip2_find_param(m, full);
}

static void zero_row(blip2 *m, int stack, int block, const char *name, int row)
{
	const param *w = part(m, stack, block, name, ".weight"), *b = part(m, stack, block, name, ".bias");
	assert_non_null(w);
	memset(blip2_weights(m) + w->offset + row * w->shape[1], 0, (size_t)w->shape[1] * sizeof(float));
	if (b)
		blip2_weights(m)[b->offset + (size_t)row] = 0;
}

static void zero_column(blip2 *m, int stack, int block, const char *name, int column)
{
	const param *w = part(m, stack, block, name, ".weight");
	assert_non_null(w);
	for (int64_t i = 0; i < w->shape[0]; i++)
		blip2_weights(m)[w->offset + (size_t)(i * w->shape[1] + column)] = 0;
}

static void zero_all(blip2 *m, int stack, int block, const char *name)
{
	const param *w = part(m, stack, block, name, ".weight"), *b = part(m, stack, block, name, ".bias");
	assert_true(w && b);
	memset(blip2_weights(m) + w->offset, 0, w->count * sizeof(float));
	memset(blip2_weights(m) + b->offset, 0, b->count * sizeof(float));
}

/* A dimension of a product is nothing when its query is, or its key, or both. */
static void zero_attention(rng *r, blip2 *m, int stack, int block, const attention_plan *p, int inner, bool cross)
{
	const char *query = cross ? "crossattention.attention.query" : NAMES[stack].query;
	const char *key = cross ? "crossattention.attention.key" : NAMES[stack].key;
	const char *out = cross ? "crossattention.output.dense" : NAMES[stack].out;
	const uint64_t way = rng_below(r, 3);
	for (int i = 0; i < inner; i++) {
		if (!p->v[i])
			zero_column(m, stack, block, out, i);
		if (!p->qk[i] && way != 0)
			zero_row(m, stack, block, query, i);
		if (!p->qk[i] && way != 1)
			zero_row(m, stack, block, key, i + (stack == COMPONENT_VISION ? inner : 0));
	}
}

static void zero_plan(rng *r, blip2 *m, const plan *p)
{
	const blip2_config *c = blip2_get_config(m);
	for (int s = 0; s < NUM_COMPONENTS; s++)
		for (int i = 0; i < shape_stack(c, each(s))->num_hidden_layers; i++) {
			const block_widths *w = &shape_stack(c, each(s))->blocks[i];
			const block_plan *b = &p->blocks[s][i];
			if (!b->stays) {
				zero_all(m, s, i, NAMES[s].out);
				zero_all(m, s, i, NAMES[s].fc2);
				if (w->cross_num_heads)
					zero_all(m, s, i, "crossattention.output.dense");
				continue;
			}
			for (int f = 0; f < w->ffn_dim; f++)
				if (!b->ffn[f])
					zero_column(m, s, i, NAMES[s].fc2, f);
			zero_attention(r, m, s, i, &b->self, w->num_heads * w->head_dim, false);
			zero_attention(r, m, s, i, &b->cross, w->cross_num_heads * w->cross_head_dim, true);
		}
}

/* A post-norm block that adds nothing still normalises: it is the identity only behind norms without weight and bias. */
static void plain_qformer_norms(blip2 *m)
{
	for (size_t i = 0; i < blip2_num_params(m); i++) {
		const param *p = blip2_param(m, i);
		if (strncmp(p->name, "qformer.", 8) == 0 && (strstr(p->name, "LayerNorm") || strstr(p->name, "layernorm")))
			for (size_t e = 0; e < p->count; e++)
				blip2_weights(m)[p->offset + e] = strstr(p->name, ".weight") ? 1 : 0;
	}
}

/* How far the logits of the sliced model are from the full one's. */
static double sliced_difference(const blip2 *m, const keep *k, const inputs *in)
{
	blip2 *small;
	assert_ok(slice_model(&small, m, k, err));
	float *full = text_logits(m, in), *logits = text_logits(small, in);
	const double d = difference(logits, full, (size_t)(SAMPLES * TOKENS * k->from.vocab_size));
	free(full);
	free(logits);
	blip2_close(&small);
	return d;
}

static void slice_planned(unsigned kinds, const char *what)
{
	double worst = 0, largest = 0;
	for (unsigned v = 0; v < 8; v++) {
		rng r = rng_open(v, 22, kinds, 0);
		const blip2_config c = random_shape(&r, v);
		blip2 *m = random_model(&r, &c);
		plan p;
		keep k;
		inputs in;
		random_inputs(&r, &in, &c);
		plan_all(&r, &p, &c, kinds);
		choose_plan(&r, &k, &p, &c);
		assert_plan(&k, &p);
		if (kinds & DROP_BLOCKS)
			plain_qformer_norms(m);
		largest = fmax(largest, sliced_difference(m, &k, &in));
		zero_plan(&r, m, &p);
		worst = fmax(worst, sliced_difference(m, &k, &in));
		assert_close(worst, 0, 1e-5, what, v);
		inputs_close(&in);
		keep_close(&k);
		blip2_close(&m);
	}
	print_message("%s: logits within %.1e; without zeroing %.1e\n", what, worst, largest);
	assert_true(largest > 1e-2); /* what goes did matter before it was zeroed */
}

static void idle_neurons_go(void **state) { slice_planned(DROP_FFN, "neurons"); }
static void idle_heads_go(void **state) { slice_planned(DROP_HEADS, "heads"); }
static void idle_dimensions_go(void **state) { slice_planned(DROP_DIMS, "head dimensions"); }
static void idle_blocks_go(void **state) { slice_planned(DROP_BLOCKS, "blocks"); }
static void idle_everything_goes(void **state) { slice_planned(DROP_ALL, "everything"); }

/* Queries that do not see each other: those that stay come out of the Q-Former as before. */
static void queries_go_one_by_one(void **state)
{
	for (unsigned v = 0; v < 4; v++) {
		rng r = rng_open(v, 23, 0, 0);
		const blip2_config c = random_shape(&r, v);
		blip2_config to = c;
		blip2 *m = random_model(&r, &c), *small;
		keep k;
		inputs in;
		for (int i = 0; i < c.qformer.num_hidden_layers; i++)
			zero_all(m, COMPONENT_QFORMER, i, NAMES[COMPONENT_QFORMER].out);
		to.num_query_tokens = between(&r, 1, c.num_query_tokens - 1);
		random_keep(&r, &k, &c, &to);
		assert_ok(slice_model(&small, m, &k, err));
		random_inputs(&r, &in, &c);
		blip2_session *full = forward(m, &in), *left = forward(small, &in);
		const size_t d = (size_t)c.qformer.hidden_size, queries = (size_t)c.num_query_tokens,
		             n = (size_t)to.num_query_tokens;
		for (size_t s = 0; s < SAMPLES; s++)
			for (size_t q = 0; q < n; q++)
				assert_close(difference(blip2_qformer_hidden(left) + (s * n + q) * d,
				                        blip2_qformer_hidden(full) + (s * queries + (size_t)k.queries[q]) * d, d),
				             0, 1e-5, "query", q);
		blip2_session_close(&full);
		blip2_session_close(&left);
		inputs_close(&in);
		keep_close(&k);
		blip2_close(&small);
		blip2_close(&m);
	}
}

/* Scores under which exactly the queries in `stays` are kept. */
static void choose_queries(rng *r, keep *k, const blip2_config *c, const bool *stays, int left)
{
	structure_scores s;
	blip2_config to = *c;
	to.num_query_tokens = left;
	assert_ok(structure_scores_open(&s, c, err));
	structure_scores_random(&s, 1);
	plant(r, s.queries, stays, c->num_query_tokens);
	assert_ok(keep_choose(k, &s, &to, BLOCKS_BY_IMPORTANCE, err));
	assert_listed(k->queries, left, stays, c->num_query_tokens);
	structure_scores_close(&s);
}

static void set_at(blip2 *m, const char *name, int row, int column, float value)
{
	const param *p = blip2_find_param(m, name);
	assert_non_null(p);
	blip2_weights(m)[p->offset + (size_t)(row * p->shape[p->rank - 1] + column)] = value;
}

#define POSITIONS "language_model.model.decoder.embed_positions.weight"
#define EMBEDDING "language_model.model.decoder.embed_tokens.weight"

/* Nobody in the text stack sees the queries that are not in `stays`. Two dimensions of the stream are a mark: the position of an
 * unseen query writes +50 and -50 there, everything else 0, and no block writes there. The first dimension of every head's keys is
 * their difference behind the norm, times 100; of its queries, the constant -1. An unseen row so scores hundreds below every other,
 * which get 0 for it. */
static void hide_queries(blip2 *m, const bool *stays)
{
	const blip2_config *c = blip2_get_config(m);
	static const char *const writers[] = {"self_attn.out_proj", "fc2"};
	for (int mark = 0; mark < 2; mark++) {
		for (int row = 0; row < c->max_position_embeddings + 2; row++)
			set_at(m, POSITIONS, row, mark, 0);
		for (int id = 0; id < c->vocab_size; id++)
			set_at(m, EMBEDDING, id, mark, 0);
		for (int d = 0; d < c->qformer.hidden_size; d++)
			set_at(m, "language_projection.weight", mark, d, 0);
		set_at(m, "language_projection.bias", 0, mark, 0);
		for (int q = 0; q < c->num_query_tokens; q++)
			set_at(m, POSITIONS, 2 + q, mark, stays[q] ? 0 : mark ? -50 : 50);
	}
	for (int i = 0; i < c->text.num_hidden_layers; i++) {
		const block_widths *w = &c->text.blocks[i];
		float *norm = blip2_weights(m) + part(m, COMPONENT_TEXT, i, "self_attn_layer_norm", ".weight")->offset;
		float *bias = blip2_weights(m) + part(m, COMPONENT_TEXT, i, "self_attn_layer_norm", ".bias")->offset;
		for (int mark = 0; mark < 2; mark++) {
			norm[mark] = 1;
			bias[mark] = 0;
			for (int k = 0; k < 2; k++)
				zero_row(m, COMPONENT_TEXT, i, writers[k], mark);
		}
		for (int h = 0; h < w->num_heads; h++) {
			const int first = h * w->head_dim;
			zero_row(m, COMPONENT_TEXT, i, "self_attn.q_proj", first);
			zero_row(m, COMPONENT_TEXT, i, "self_attn.k_proj", first);
			blip2_weights(m)[part(m, COMPONENT_TEXT, i, "self_attn.q_proj", ".bias")->offset + (size_t)first] = -1;
			float *key = blip2_weights(m) + part(m, COMPONENT_TEXT, i, "self_attn.k_proj", ".weight")->offset +
			             first * c->text.hidden_size;
			key[0] = 100;
			key[1] = -100;
		}
	}
}

/* Queries without influence go, and the words behind them are where they were: positions are learned. */
static void unseen_queries_go_without_a_change(void **state)
{
	double worst = 0, largest = 0;
	for (unsigned v = 0; v < 8; v++) {
		rng r = rng_open(v, 28, 0, 0);
		const blip2_config c = random_shape(&r, v);
		const int left = between(&r, 1, c.num_query_tokens - 1);
		blip2 *m = random_model(&r, &c);
		bool stays[WIDEST];
		keep k;
		inputs in;
		for (int i = 0; i < c.qformer.num_hidden_layers; i++) /* queries do not see each other there */
			zero_all(m, COMPONENT_QFORMER, i, NAMES[COMPONENT_QFORMER].out);
		pick(&r, stays, c.num_query_tokens, left);
		choose_queries(&r, &k, &c, stays, left);
		random_inputs(&r, &in, &c);
		largest = fmax(largest, sliced_difference(m, &k, &in));
		hide_queries(m, stays);
		worst = fmax(worst, sliced_difference(m, &k, &in));
		assert_close(worst, 0, 1e-5, "queries", v);
		inputs_close(&in);
		keep_close(&k);
		blip2_close(&m);
	}
	print_message("queries: logits within %.1e; without hiding %.1e\n", worst, largest);
	assert_true(largest > 1e-2);
}

static void another_shape_is_refused(void **state)
{
	rng r = rng_open(0, 24, 0, 0);
	const blip2_config c = random_shape(&r, 0);
	blip2_config other = c;
	other.text.blocks[1].ffn_dim++;
	blip2 *m = random_model(&r, &other), *out = m;
	keep k;
	random_keep(&r, &k, &c, &c);
	assert_refused(WN_INVALID, "another shape", slice_model(&out, m, &k, err));
	assert_null(out);
	keep_close(&k);
	blip2_close(&m);
}

/* ---- on disk ---- */

static void a_sliced_model_survives_its_directory(void **state)
{
	char base[256], dir[300];
	scratch_open(base, sizeof base);
	snprintf(dir, sizeof dir, "%s/student", base);
	for (unsigned v = 0; v < 4; v++) {
		rng r = rng_open(v, 27, 0, 0);
		const blip2_config c = random_shape(&r, v), to = random_target(&r, &c);
		blip2 *m = random_model(&r, &c), *small;
		keep k;
		inputs in;
		checkpoint ck;
		manifest man = {.name = "student", .max_text_tokens = 96};
		random_keep(&r, &k, &c, &to);
		assert_false(hf_config_is_uniform(&k.to));
		assert_ok(slice_model(&small, m, &k, err));
		assert_ok(checkpoint_save(dir, small, &man, NULL, NULL, DTYPE_F32, err));
		assert_ok(checkpoint_load(&ck, dir, &(checkpoint_options){.verify_digests = true}, err));
		for (int x = 0; x < NUM_COMPONENTS; x++) {
			const stack_config *got = shape_stack(blip2_get_config(ck.model), each(x)),
			                   *want = shape_stack(&k.to, each(x));
			assert_int_equal(got->num_hidden_layers, want->num_hidden_layers);
			assert_memory_equal(got->blocks, want->blocks, (size_t)want->num_hidden_layers * sizeof *want->blocks);
		}
		random_inputs(&r, &in, &c);
		float *before = text_logits(small, &in), *after = text_logits(ck.model, &in);
		assert_memory_equal(after, before, (size_t)(SAMPLES * TOKENS * c.vocab_size) * sizeof *before);
		free(before);
		free(after);
		inputs_close(&in);
		checkpoint_close(&ck);
		keep_close(&k);
		blip2_close(&small);
		blip2_close(&m);
	}
	remove_tree(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeping_everything_changes_no_bit),
		cmocka_unit_test(every_weight_comes_from_its_place),
		cmocka_unit_test(idle_neurons_go),
		cmocka_unit_test(idle_heads_go),
		cmocka_unit_test(idle_dimensions_go),
		cmocka_unit_test(idle_blocks_go),
		cmocka_unit_test(idle_everything_goes),
		cmocka_unit_test(queries_go_one_by_one),
		cmocka_unit_test(unseen_queries_go_without_a_change),
		cmocka_unit_test(another_shape_is_refused),
		cmocka_unit_test(a_sliced_model_survives_its_directory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
