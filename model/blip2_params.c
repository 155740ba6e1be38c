/* blip2_params.c: Hugging Face's names and shapes laid over one flat buffer, and the first weights.
 *
 * The order of the calls below is the order in memory. Parameters of one fused group (query, key, value) follow each
 * other without a gap; every other parameter starts on a 64-byte boundary. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "model/blip2_internal.h"
#include "model/embedding.h"

#define ALIGN_FLOATS 16

typedef struct builder {
	blip2 *m;
	component component;
	int block;       /* of `component`; -1: outside of blocks */
	int next_role;   /* in the block */
	int next_outside;
	wn_code code;
} builder;

static void enter_stack(builder *b, component which)
{
	b->component = which;
	b->block = -1;
}

static void enter_block(builder *b, int index)
{
	b->block = index;
	b->next_role = 0;
}

/* One axis of a parameter: its length and what it runs over. */
typedef struct dim {
	int length;
	axis axis;
} dim;

/* Appends a parameter; `joined` puts it right behind the last one. Returns its offset. */
static size_t add(builder *b, bool joined, bool decay, int rank, const dim *dims, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));

static size_t add(builder *b, bool joined, bool decay, int rank, const dim *dims, const char *fmt, ...)
{
	blip2 *m = b->m;
	if (b->code)
		return 0;
	if (m->num_params == m->capacity) {
		size_t capacity = m->capacity ? 2 * m->capacity : 256;
		param *grown = realloc(m->params, capacity * sizeof *grown);
		if (!grown) {
			b->code = WN_NOMEM;
			return 0;
		}
		m->params = grown;
		m->capacity = capacity;
	}
	param *p = &m->params[m->num_params++];
	memset(p, 0, sizeof *p);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(p->name, sizeof p->name, fmt, ap);
	va_end(ap);
	p->component = b->component;
	p->block = b->block;
	p->role = b->block < 0 ? b->next_outside++ : b->next_role++;
	p->decay = decay;
	p->rank = rank;
	p->count = 1;
	for (int i = 0; i < rank; i++) {
		p->shape[i] = dims[i].length;
		p->axes[i] = dims[i].axis;
		p->count *= (size_t)dims[i].length;
	}
	if (!joined)
		m->weights_count = (m->weights_count + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
	p->offset = m->weights_count;
	m->weights_count += p->count;
	return p->offset;
}

#define VECTOR(d)        1, (const dim[]){d}
#define MATRIX(out, in)  2, (const dim[]){out, in}
#define CUBE(a, b, c)    3, (const dim[]){a, b, c}
#define BOX(a, b, c, d)  4, (const dim[]){a, b, c, d}

static dim fixed(int length) { return (dim){length, AXIS_FIXED}; }
static dim vision_hidden(const blip2_config *c) { return (dim){c->vision.hidden_size, AXIS_VISION_HIDDEN}; }
static dim qformer_hidden(const blip2_config *c) { return (dim){c->qformer.hidden_size, AXIS_QFORMER_HIDDEN}; }
static dim text_hidden(const blip2_config *c) { return (dim){c->text.hidden_size, AXIS_TEXT_HIDDEN}; }
static dim ffn(const block *k) { return (dim){k->ffn_dim, AXIS_FFN}; }

static norm_params add_norm(builder *b, const char *name, dim hidden)
{
	norm_params n;
	n.weight = add(b, false, false, VECTOR(hidden), "%s.weight", name);
	n.bias = add(b, false, false, VECTOR(hidden), "%s.bias", name);
	return n;
}

static void add_linear(builder *b, size_t *weight, size_t *bias, const char *name, dim out, dim in)
{
	*weight = add(b, false, true, MATRIX(out, in), "%s.weight", name);
	*bias = add(b, false, false, VECTOR(out), "%s.bias", name);
}

/* Several projections of the same input as one matrix: weights joined, then biases joined. out[i] is that of names[i]. */
static void add_fused(builder *b, size_t *weight, size_t *bias, const char *prefix, const char *const *names, int count,
                      const dim *out, dim in)
{
	for (int i = 0; i < count; i++) {
		size_t at = add(b, i > 0, true, MATRIX(out[i], in), "%s.%s.weight", prefix, names[i]);
		if (i == 0)
			*weight = at;
	}
	for (int i = 0; i < count; i++) {
		size_t at = add(b, i > 0, false, VECTOR(out[i]), "%s.%s.bias", prefix, names[i]);
		if (i == 0)
			*bias = at;
	}
}

static block new_block(const stack_config *c, const block_widths *w, bool pre_norm, bool causal)
{
	return (block){.hidden = c->hidden_size,
	               .pre_norm = pre_norm,
	               .causal = causal,
	               .eps = c->layer_norm_eps,
	               .activation = c->activation,
	               .self = {.num_heads = w->num_heads, .head_dim = w->head_dim},
	               .cross = {.num_heads = w->cross_num_heads, .head_dim = w->cross_head_dim},
	               .ffn_dim = w->ffn_dim};
}

/* Blip2EncoderLayer */
static void add_vision_block(builder *b, block *k, int i, bool qkv_bias)
{
	char p[64], name[112];
	const dim hidden = vision_hidden(&b->m->config);
	const int inner = k->self.num_heads * k->self.head_dim;
	const dim qkv = {3 * inner, AXIS_SELF_QKV}, v = {inner, AXIS_SELF_V};
	enter_block(b, i);
	snprintf(p, sizeof p, "vision_model.encoder.layers.%d", i);
	k->self.qkv_weight = add(b, false, true, MATRIX(qkv, hidden), "%s.self_attn.qkv.weight", p);
	k->self.qkv_bias = qkv_bias ? add(b, false, false, VECTOR(qkv), "%s.self_attn.qkv.bias", p) : NO_PARAM;
	snprintf(name, sizeof name, "%s.self_attn.projection", p);
	add_linear(b, &k->self.out_weight, &k->self.out_bias, name, hidden, v);
	snprintf(name, sizeof name, "%s.layer_norm1", p);
	k->self.norm = add_norm(b, name, hidden);
	snprintf(name, sizeof name, "%s.mlp.fc1", p);
	add_linear(b, &k->fc1_weight, &k->fc1_bias, name, ffn(k), hidden);
	snprintf(name, sizeof name, "%s.mlp.fc2", p);
	add_linear(b, &k->fc2_weight, &k->fc2_bias, name, hidden, ffn(k));
	snprintf(name, sizeof name, "%s.layer_norm2", p);
	k->ffn_norm = add_norm(b, name, hidden);
}

/* Blip2QFormerAttention, self or cross. */
static void add_qformer_attention(builder *b, attention_params *a, const char *prefix, bool cross)
{
	static const char *const all[] = {"query", "key", "value"};
	char name[112];
	const int inner = a->num_heads * a->head_dim;
	const dim hidden = qformer_hidden(&b->m->config), kv = vision_hidden(&b->m->config);
	const dim qk = {inner, cross ? AXIS_CROSS_QK : AXIS_SELF_QK}, v = {inner, cross ? AXIS_CROSS_V : AXIS_SELF_V};
	const dim out[] = {qk, qk, v};
	a->kv_width = cross ? kv.length : 0;
	snprintf(name, sizeof name, "%s.attention", prefix);
	if (cross) {
		add_fused(b, &a->qkv_weight, &a->qkv_bias, name, all, 1, out, hidden);
		add_fused(b, &a->kv_weight, &a->kv_bias, name, all + 1, 2, out + 1, kv);
	} else {
		add_fused(b, &a->qkv_weight, &a->qkv_bias, name, all, 3, out, hidden);
	}
	snprintf(name, sizeof name, "%s.output.dense", prefix);
	add_linear(b, &a->out_weight, &a->out_bias, name, hidden, v);
	snprintf(name, sizeof name, "%s.output.LayerNorm", prefix);
	a->norm = add_norm(b, name, hidden);
}

/* Blip2QFormerLayer */
static void add_qformer_block(builder *b, block *k, int i)
{
	char p[48], name[112];
	const dim hidden = qformer_hidden(&b->m->config);
	enter_block(b, i);
	snprintf(p, sizeof p, "qformer.encoder.layer.%d", i);
	snprintf(name, sizeof name, "%s.attention", p);
	add_qformer_attention(b, &k->self, name, false);
	if (k->cross.num_heads) {
		snprintf(name, sizeof name, "%s.crossattention", p);
		add_qformer_attention(b, &k->cross, name, true);
	}
	snprintf(name, sizeof name, "%s.intermediate_query.dense", p);
	add_linear(b, &k->fc1_weight, &k->fc1_bias, name, ffn(k), hidden);
	snprintf(name, sizeof name, "%s.output_query.dense", p);
	add_linear(b, &k->fc2_weight, &k->fc2_bias, name, hidden, ffn(k));
	snprintf(name, sizeof name, "%s.output_query.LayerNorm", p);
	k->ffn_norm = add_norm(b, name, hidden);
}

/* OPTDecoderLayer */
static void add_text_block(builder *b, block *k, int i)
{
	static const char *const all[] = {"q_proj", "k_proj", "v_proj"};
	char p[64], name[112];
	const dim hidden = text_hidden(&b->m->config);
	const int inner = k->self.num_heads * k->self.head_dim;
	const dim out[] = {{inner, AXIS_SELF_QK}, {inner, AXIS_SELF_QK}, {inner, AXIS_SELF_V}};
	enter_block(b, i);
	snprintf(p, sizeof p, "language_model.model.decoder.layers.%d", i);
	snprintf(name, sizeof name, "%s.self_attn", p);
	add_fused(b, &k->self.qkv_weight, &k->self.qkv_bias, name, all, 3, out, hidden);
	snprintf(name, sizeof name, "%s.self_attn.out_proj", p);
	add_linear(b, &k->self.out_weight, &k->self.out_bias, name, hidden, out[2]);
	snprintf(name, sizeof name, "%s.self_attn_layer_norm", p);
	k->self.norm = add_norm(b, name, hidden);
	snprintf(name, sizeof name, "%s.fc1", p);
	add_linear(b, &k->fc1_weight, &k->fc1_bias, name, ffn(k), hidden);
	snprintf(name, sizeof name, "%s.fc2", p);
	add_linear(b, &k->fc2_weight, &k->fc2_bias, name, hidden, ffn(k));
	snprintf(name, sizeof name, "%s.final_layer_norm", p);
	k->ffn_norm = add_norm(b, name, hidden);
}

static void add_vision(builder *b)
{
	blip2 *m = b->m;
	const blip2_config *c = &m->config;
	const dim hidden = vision_hidden(c), one = fixed(1), patch = fixed(c->patch_size);
	enter_stack(b, COMPONENT_VISION);
	m->class_embedding = add(b, false, false, CUBE(one, one, hidden), "vision_model.embeddings.class_embedding");
	m->vision_position = add(b, false, false, CUBE(one, fixed(1 + blip2_num_patches(c)), hidden),
	                         "vision_model.embeddings.position_embedding");
	m->patch_weight = add(b, false, true, BOX(hidden, fixed(3), patch, patch), "vision_model.embeddings.patch_embedding.weight");
	m->patch_bias = add(b, false, false, VECTOR(hidden), "vision_model.embeddings.patch_embedding.bias");
	m->vision.hidden = hidden.length;
	m->vision.num_blocks = c->vision.num_hidden_layers;
	for (int i = 0; i < m->vision.num_blocks; i++) {
		m->vision.blocks[i] = new_block(&c->vision, &c->vision.blocks[i], true, false);
		add_vision_block(b, &m->vision.blocks[i], i, c->qkv_bias);
	}
	enter_stack(b, COMPONENT_VISION);
	m->vision_norm = add_norm(b, "vision_model.post_layernorm", hidden);
}

static void add_qformer(builder *b)
{
	blip2 *m = b->m;
	const blip2_config *c = &m->config;
	const dim hidden = qformer_hidden(c);
	enter_stack(b, COMPONENT_QFORMER);
	m->query_tokens = add(b, false, false, CUBE(fixed(1), ((dim){c->num_query_tokens, AXIS_QUERY}), hidden), "query_tokens");
	m->query_norm = add_norm(b, "qformer.layernorm", hidden);
	m->qformer.hidden = hidden.length;
	m->qformer.num_blocks = c->qformer.num_hidden_layers;
	for (int i = 0; i < m->qformer.num_blocks; i++) {
		m->qformer.blocks[i] = new_block(&c->qformer, &c->qformer.blocks[i], false, false);
		add_qformer_block(b, &m->qformer.blocks[i], i);
	}
	enter_stack(b, COMPONENT_QFORMER);
	add_linear(b, &m->projection_weight, &m->projection_bias, "language_projection", text_hidden(c), hidden);
}

static void add_text(builder *b)
{
	blip2 *m = b->m;
	const blip2_config *c = &m->config;
	const dim hidden = text_hidden(c);
	enter_stack(b, COMPONENT_TEXT);
	m->token_embedding = add(b, false, true, MATRIX(fixed(c->vocab_size), hidden),
	                         "language_model.model.decoder.embed_tokens.weight");
	m->text_position = add(b, false, false, MATRIX(((dim){c->max_position_embeddings + POSITION_OFFSET, AXIS_POSITION}), hidden),
	                       "language_model.model.decoder.embed_positions.weight");
	m->text.hidden = hidden.length;
	m->text.num_blocks = c->text.num_hidden_layers;
	for (int i = 0; i < m->text.num_blocks; i++) {
		m->text.blocks[i] = new_block(&c->text, &c->text.blocks[i], true, true);
		add_text_block(b, &m->text.blocks[i], i);
	}
	enter_stack(b, COMPONENT_TEXT);
	m->text_norm = add_norm(b, "language_model.model.decoder.final_layer_norm", hidden);
}

wn_code blip2_create(blip2 **out, const blip2_config *c, wn_error *err)
{
	*out = NULL;
	blip2 *m = calloc(1, sizeof *m);
	if (!m)
		return wn_fail(err, WN_NOMEM, "no memory for a model");
	m->config = *c;
	builder b = {.m = m};
	add_vision(&b);
	add_qformer(&b);
	add_text(&b);
	wn_code code = b.code;
	if (code)
		wn_fail(err, code, "no memory for the names of %zu parameters", m->num_params);
	else if ((code = arena_open(&m->memory, m->weights_count * sizeof(float), err)))
		wn_fail_prefix(err, "a model of %.1f M parameters", (double)m->weights_count * 1e-6);
	if (code) {
		blip2_close(&m);
		return code;
	}
	m->weights = arena_alloc(&m->memory, m->weights_count * sizeof(float));
	*out = m;
	return WN_OK;
}

void blip2_close(blip2 **m)
{
	if (!m || !*m)
		return;
	arena_close(&(*m)->memory);
	free((*m)->params);
	free(*m);
	*m = NULL;
}

/* SplitMix64: one well-mixed 64-bit number a call, so that init needs no library state. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* Standard normal by Box-Muller, redrawn outside two standard deviations (torch.nn.init.trunc_normal_ as ViTs use it). */
static float truncated_normal(uint64_t *state)
{
	for (;;) {
		double u = ((double)(next_random(state) >> 11) + 1.0) * 0x1p-53, v = (double)(next_random(state) >> 11) * 0x1p-53;
		double z = sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
		if (z > -2.0 && z < 2.0)
			return (float)z;
	}
}

/* Is p a table or a set of tokens rather than a layer's matrix? Its rows are inputs themselves: there is no fan-in. */
static bool is_embedding(const blip2 *m, const param *p)
{
	return p->offset == m->class_embedding || p->offset == m->vision_position || p->offset == m->query_tokens ||
	       p->offset == m->token_embedding || p->offset == m->text_position;
}

void blip2_init_weights(blip2 *m, uint64_t seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
	memset(m->weights, 0, m->weights_count * sizeof *m->weights);
	for (size_t i = 0; i < m->num_params; i++) {
		const param *p = &m->params[i];
		float *w = m->weights + p->offset;
		/* Vectors are norms (1, 0) and biases (0). */
		bool one = p->rank == 1 && text_ends_with(p->name, ".weight");
		float std = is_embedding(m, p) ? m->config.initializer_range : 1.0f / sqrtf((float)(p->count / (size_t)p->shape[0]));
		for (size_t j = 0; j < p->count; j++)
			w[j] = p->rank > 1 ? std * truncated_normal(&state) : one ? 1.0f : 0.0f;
	}
}

const blip2_config *blip2_get_config(const blip2 *m) { return &m->config; }
size_t blip2_num_params(const blip2 *m) { return m->num_params; }
const param *blip2_param(const blip2 *m, size_t i) { return i < m->num_params ? &m->params[i] : NULL; }
float *blip2_weights(blip2 *m) { return m->weights; }
size_t blip2_weights_count(const blip2 *m) { return m->weights_count; }

const param *blip2_param_at(const blip2 *m, size_t offset)
{
	for (size_t i = 0; i < m->num_params; i++)
		if (m->params[i].offset == offset)
			return &m->params[i];
	return NULL;
}

const param *blip2_find_role(const blip2 *m, component which, int index, int role)
{
	for (size_t i = 0; i < m->num_params; i++)
		if (m->params[i].component == which && m->params[i].block == index && m->params[i].role == role)
			return &m->params[i];
	return NULL;
}

const param *blip2_find_param(const blip2 *m, const char *name)
{
	for (size_t i = 0; i < m->num_params; i++)
		if (strcmp(m->params[i].name, name) == 0)
			return &m->params[i];
	return NULL;
}

size_t blip2_parameter_count(const blip2 *m)
{
	size_t count = 0;
	for (size_t i = 0; i < m->num_params; i++)
		count += m->params[i].count;
	return count;
}
