/* small_models.h: what the tests of structures share: random small models whose stacks all differ, inputs for them, and a
 * second opinion on which structure every element of a parameter belongs to, written over Hugging Face's names (the code
 * under test is written over axes and sees no names). */
#ifndef WINNOW_TESTS_COMPRESS_SMALL_MODELS_H
#define WINNOW_TESTS_COMPRESS_SMALL_MODELS_H

#include "tests/prune/support.h"

#include "model/blip2.h"
#include "prune/compress/keep.h"
#include "prune/rng.h"

enum { SAMPLES = 2, TOKENS = 6 };

static inline int between(rng *r, int lo, int hi) { return lo + (int)rng_below(r, (uint64_t)(hi - lo + 1)); }

/* ---- models ---- */

static inline void random_stack(rng *r, stack_config *s, float eps, activation a)
{
	const block_widths all = {.num_heads = between(r, 2, 4), .head_dim = between(r, 3, 8), .ffn_dim = between(r, 9, 33)};
	const bool vary = rng_below(r, 2);
	*s = (stack_config){.hidden_size = between(r, 12, 40),
	                    .num_hidden_layers = between(r, 3, 5),
	                    .layer_norm_eps = eps,
	                    .activation = a};
	for (int i = 0; i < s->num_hidden_layers; i++) {
		s->blocks[i] = all;
		if (vary)
			s->blocks[i].num_heads = between(r, 1, 4), s->blocks[i].ffn_dim = between(r, 9, 33);
	}
}

/* Every stack has its own hidden width, heads, head size and FFN width; heads * head_dim is not the hidden width. Variant
 * bits: 1: no qkv bias; 2: cross-attention in every second block. */
static inline blip2_config random_shape(rng *r, unsigned variant)
{
	blip2_config c = {.image_size = 8, .patch_size = 4, .qkv_bias = !(variant & 1), .num_query_tokens = between(r, 3, 7),
	                  .cross_attention_frequency = variant & 2 ? 2 : 1, .vocab_size = between(r, 20, 40),
	                  .max_position_embeddings = 24, .bos_token_id = 2, .eos_token_id = 2, .pad_token_id = 1,
	                  .image_token_index = -1, .initializer_range = 0.02f};
	random_stack(r, &c.vision, 1e-6f, ACTIVATION_GELU);
	random_stack(r, &c.qformer, 1e-12f, ACTIVATION_GELU);
	random_stack(r, &c.text, 1e-5f, ACTIVATION_RELU);
	const int heads = between(r, 1, 4), dim = between(r, 2, 8);
	for (int i = 0; i < c.qformer.num_hidden_layers; i += c.cross_attention_frequency)
		c.qformer.blocks[i].cross_num_heads = heads, c.qformer.blocks[i].cross_head_dim = dim;
	return c;
}

/* Every weight is random, biases and norms too. */
static inline blip2 *random_model(rng *r, const blip2_config *c)
{
	blip2 *m;
	assert_ok(blip2_create(&m, c, err));
	for (size_t i = 0; i < blip2_num_params(m); i++) {
		const param *p = blip2_param(m, i);
		const bool norm =
		        p->rank == 1 && (strstr(p->name, "norm") || strstr(p->name, "Norm")) && strstr(p->name, ".weight");
		const double size = p->rank == 2 ? 1.7 / sqrt((double)p->shape[1]) : p->rank == 1 ? 0.3 : 0.8;
		for (size_t e = 0; e < p->count; e++)
			blip2_weights(m)[p->offset + e] = (float)(norm + rng_uniform(r, -size, size));
	}
	return m;
}

typedef struct inputs {
	float *pixels;
	int32_t ids[SAMPLES * TOKENS];
	uint8_t mask[SAMPLES * TOKENS];
	blip2_batch batch;
} inputs;

static inline void random_inputs(rng *r, inputs *in, const blip2_config *c)
{
	const size_t pixels = SAMPLES * 3 * (size_t)c->image_size * (size_t)c->image_size;
	in->pixels = malloc(pixels * sizeof *in->pixels);
	for (size_t i = 0; i < pixels; i++)
		in->pixels[i] = (float)rng_uniform(r, -2, 2);
	for (int i = 0; i < SAMPLES * TOKENS; i++) {
		in->ids[i] = between(r, 2, c->vocab_size - 1);
		in->mask[i] = i >= 2; /* the first sample has padding on the left */
	}
	in->batch = (blip2_batch){
	        .n = SAMPLES, .text_len = TOKENS, .pixel_values = in->pixels, .input_ids = in->ids, .attention_mask = in->mask};
}
static inline void inputs_close(inputs *in) { free(in->pixels); }

static inline blip2_session *forward(const blip2 *m, const inputs *in)
{
	blip2_session *s;
	blip2_session_options o = blip2_session_defaults();
	o.max_batch = SAMPLES;
	o.max_text_len = TOKENS;
	o.keep_hidden = true;
	assert_ok(blip2_session_open(&s, m, &o, err));
	assert_ok(blip2_forward(s, &in->batch, err));
	return s;
}

/* Logits of the text rows [SAMPLES * TOKENS][V], malloc'ed. */
static inline float *text_logits(const blip2 *m, const inputs *in)
{
	const blip2_config *c = blip2_get_config(m);
	int32_t rows[SAMPLES * TOKENS];
	for (int i = 0; i < SAMPLES * TOKENS; i++)
		rows[i] = i / TOKENS * (c->num_query_tokens + TOKENS) + c->num_query_tokens + i % TOKENS;
	float *out = malloc(sizeof rows / sizeof *rows * (size_t)c->vocab_size * sizeof *out);
	blip2_session *s = forward(m, in);
	blip2_logits(s, rows, SAMPLES * TOKENS, out);
	blip2_session_close(&s);
	return out;
}

/* max |a - b| / max |b|; infinite with NaN. */
static inline double difference(const float *a, const float *b, size_t count)
{
	double worst = 0, size = 0;
	for (size_t i = 0; i < count; i++) {
		const double d = fabs((double)a[i] - b[i]);
		if (!(d < INFINITY))
			return INFINITY;
		worst = fmax(worst, d);
		size = fmax(size, fabs(b[i]));
	}
	return worst / size;
}

/* ---- smaller shapes ---- */

static inline component each(int c) { return (component)c; }

static inline stack_config *stack_at(blip2_config *c, int which) { return shape_stack_in(c, each(which)); }

/* Which of `left` blocks have cross-attention, when they are some of s's: of the Q-Former's, one at least. */
static inline void random_cross(rng *r, bool *cross, const stack_config *s, int left, bool needed)
{
	for (int crossing = 0; crossing == 0;) {
		uint32_t order[MAX_BLOCKS];
		bool stays[MAX_BLOCKS] = {false};
		rng_permutation(r, order, (size_t)s->num_hidden_layers);
		for (int i = 0; i < left; i++)
			stays[order[i]] = true;
		for (int i = 0, next = 0; i < s->num_hidden_layers; i++)
			if (stays[i])
				crossing += cross[next++] = s->blocks[i].cross_num_heads > 0;
		crossing += !needed;
	}
}

/* A smaller shape: every number somewhere between 1 and what it is, cross-attention in blocks that can be left. */
static inline blip2_config random_target(rng *r, const blip2_config *from)
{
	blip2_config to = *from;
	to.num_query_tokens = between(r, 1, from->num_query_tokens);
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		stack_config *s = stack_at(&to, c);
		block_widths least = s->blocks[0];
		bool cross[MAX_BLOCKS];
		int cross_heads = 64, cross_dim = 64;
		for (int i = 0; i < s->num_hidden_layers; i++) { /* any block may be the one that stays */
			const block_widths *w = &s->blocks[i];
			least.num_heads = w->num_heads < least.num_heads ? w->num_heads : least.num_heads;
			least.ffn_dim = w->ffn_dim < least.ffn_dim ? w->ffn_dim : least.ffn_dim;
			least.head_dim = w->head_dim < least.head_dim ? w->head_dim : least.head_dim;
			if (w->cross_num_heads && w->cross_num_heads < cross_heads)
				cross_heads = w->cross_num_heads;
			if (w->cross_num_heads && w->cross_head_dim < cross_dim)
				cross_dim = w->cross_head_dim;
		}
		s->hidden_size = between(r, 1, s->hidden_size);
		const int left = between(r, 1, s->num_hidden_layers);
		random_cross(r, cross, s, left, c == COMPONENT_QFORMER);
		s->num_hidden_layers = left;
		for (int i = 0; i < s->num_hidden_layers; i++)
			s->blocks[i] = (block_widths){.num_heads = between(r, 1, least.num_heads),
			                              .head_dim = between(r, 1, least.head_dim),
			                              .ffn_dim = between(r, 1, least.ffn_dim)};
		for (int i = 0; i < s->num_hidden_layers; i++)
			if (cross[i])
				s->blocks[i].cross_num_heads = between(r, 1, cross_heads),
				s->blocks[i].cross_head_dim = between(r, 1, cross_dim);
	}
	return to;
}

static inline void random_keep(rng *r, keep *k, const blip2_config *from, const blip2_config *to)
{
	structure_scores s;
	assert_ok(structure_scores_open(&s, from, err));
	structure_scores_random(&s, rng_next(r));
	assert_ok(keep_choose(k, &s, to, BLOCKS_BY_IMPORTANCE, err));
	assert_memory_equal(&k->to, to, sizeof *to);
	structure_scores_close(&s);
}

/* ---- the second opinion ---- */

/* Axes by letter: v q t hidden of vision, Q-Former, text; n queries; p text positions; f neurons; a b query-key and value dimensions of the
 * self-attention, c d of the cross-attention; Q fused qkv; . none. A .bias has the first of its .weight's. */
static const struct {
	const char *name, *axes;
} NAMED[] = {
	{"vision_model.embeddings.class_embedding", "..v"},
	{"vision_model.embeddings.position_embedding", "..v"},
	{"vision_model.embeddings.patch_embedding", "v..."},
	{"vision_model.encoder.layers.#.self_attn.qkv", "Qv"},
	{"vision_model.encoder.layers.#.self_attn.projection", "vb"},
	{"vision_model.encoder.layers.#.layer_norm1", "v"},
	{"vision_model.encoder.layers.#.layer_norm2", "v"},
	{"vision_model.encoder.layers.#.mlp.fc1", "fv"},
	{"vision_model.encoder.layers.#.mlp.fc2", "vf"},
	{"vision_model.post_layernorm", "v"},
	{"query_tokens", ".nq"},
	{"qformer.layernorm", "q"},
	{"qformer.encoder.layer.#.attention.attention.query", "aq"},
	{"qformer.encoder.layer.#.attention.attention.key", "aq"},
	{"qformer.encoder.layer.#.attention.attention.value", "bq"},
	{"qformer.encoder.layer.#.attention.output.dense", "qb"},
	{"qformer.encoder.layer.#.attention.output.LayerNorm", "q"},
	{"qformer.encoder.layer.#.crossattention.attention.query", "cq"},
	{"qformer.encoder.layer.#.crossattention.attention.key", "cv"},
	{"qformer.encoder.layer.#.crossattention.attention.value", "dv"},
	{"qformer.encoder.layer.#.crossattention.output.dense", "qd"},
	{"qformer.encoder.layer.#.crossattention.output.LayerNorm", "q"},
	{"qformer.encoder.layer.#.intermediate_query.dense", "fq"},
	{"qformer.encoder.layer.#.output_query.dense", "qf"},
	{"qformer.encoder.layer.#.output_query.LayerNorm", "q"},
	{"language_projection", "tq"},
	{"language_model.model.decoder.embed_tokens", ".t"},
	{"language_model.model.decoder.embed_positions", "pt"},
	{"language_model.model.decoder.layers.#.self_attn.q_proj", "at"},
	{"language_model.model.decoder.layers.#.self_attn.k_proj", "at"},
	{"language_model.model.decoder.layers.#.self_attn.v_proj", "bt"},
	{"language_model.model.decoder.layers.#.self_attn.out_proj", "tb"},
	{"language_model.model.decoder.layers.#.self_attn_layer_norm", "t"},
	{"language_model.model.decoder.layers.#.fc1", "ft"},
	{"language_model.model.decoder.layers.#.fc2", "tf"},
	{"language_model.model.decoder.layers.#.final_layer_norm", "t"},
	{"language_model.model.decoder.final_layer_norm", "t"},
};

typedef struct named {
	component stack;
	int block;      /* -1: outside of the blocks */
	char axes[5];
	bool query;     /* a query projection, or a fused one, whose first third is */
	char format[128]; /* the name with %d for the block's number */
} named;

static inline named find_named(const char *name)
{
	for (size_t i = 0; i < sizeof NAMED / sizeof *NAMED; i++) {
		const char *at = name, *p = NAMED[i].name;
		named n = {.block = -1};
		size_t len = 0;
		for (; *p && *at; p++) {
			if (*p == '#') {
				char *end;
				n.block = (int)strtol(at, &end, 10);
				at = end;
				len += (size_t)sprintf(n.format + len, "%%d");
			} else if (*p == *at) {
				n.format[len++] = *at++;
			} else {
				break;
			}
		}
		const bool bias = !strcmp(at, ".bias");
		if (*p || (*at && !bias && strcmp(at, ".weight") != 0))
			continue;
		strcpy(n.format + len, at);
		strcpy(n.axes, NAMED[i].axes);
		n.axes[bias ? 1 : 4] = 0;
		n.stack = !strncmp(name, "vision", 6)            ? COMPONENT_VISION
		          : !strncmp(name, "language_model", 14) ? COMPONENT_TEXT
		                                                 : COMPONENT_QFORMER;
		n.query = n.axes[0] == 'Q' || strstr(name, ".query.") || strstr(name, ".q_proj.");
		return n;
	}
	fail_msg("%s: no such name in the table", name);
	return (named){0};
}

/* Coordinates of element e. */
static inline void coordinates(int64_t *at, const param *p, size_t e)
{
	for (int a = p->rank - 1; a >= 0; a--) {
		at[a] = (int64_t)e % p->shape[a];
		e /= (size_t)p->shape[a];
	}
}

#endif
