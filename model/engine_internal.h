/* engine_internal.h: the fields of an engine and its session, for engine.c (memory, the forward of three stacks), engine_layer.c
 * (one Linear in its precision) and engine_block.c (one block). */
#ifndef WINNOW_MODEL_ENGINE_INTERNAL_H
#define WINNOW_MODEL_ENGINE_INTERNAL_H

#include "base/arena.h"
#include "model/blip2_internal.h"
#include "model/engine.h"
#include "model/packed.h"

/* One Linear. What it reads and writes depends on its precision:
 *     f32:  f32 -> f32      bf16: bf16 -> f32 or bf16      int8: s8 with row scales -> s32 */
typedef struct layer {
	packed_linear *packed;
	element src, dst;
	size_t in, out;
	float *scale;      /* int8: [out], owned */
	const float *bias; /* int8: [out] or NULL, the model's: added where dst is read */
} layer;

typedef struct layer_options {
	precision precision;
	bool accumulate;  /* f32, bf16: dst is added to what is there, f32 */
	bool wide;        /* bf16: dst is f32 */
} layer_options;

/* w [out][in], b [out] or NULL: copied, but for an int8 layer's bias. */
wn_code layer_open(layer *l, const layer_options *o, const float *w, const float *b, size_t in, size_t out, wn_error *err);
void layer_close(layer *l);

typedef struct engine_attention {
	int num_heads, head_dim;
	int kv_width; /* 0: self-attention */
	layer qkv;    /* q, k, v; cross: q */
	layer kv;     /* cross: k, v */
	layer out;
	norm_params norm;
} engine_attention;

typedef struct engine_block {
	engine_attention self, cross; /* cross.num_heads 0: none */
	layer fc1, fc2;
	activation activation;
	bool pre_norm, causal;
	int hidden;
	float eps;
	norm_params norm;
} engine_block;

typedef struct engine_stack {
	int num_blocks;
	engine_block blocks[MAX_BLOCKS];
} engine_stack;

struct engine {
	const blip2 *m;
	precision precision;
	engine_stack vision, qformer, text;
	layer patches, projection, logits;
	char description[128];
};

/* What products read and write between a block's rows, for the largest of all blocks. */
typedef struct engine_buffers {
	void *in;          /* a product's operand */
	float *in_scale;   /* [rows]: of s8 rows */
	void *raw;         /* what a product wrote */
	void *qkv, *kv;    /* attention's operands, f32 or bf16 */
	float *scores;     /* [heads][rows][keys] of one sample */
	uint16_t *probs;   /* the same in bf16 */
	void *context;     /* [rows][inner] */
	float *row;        /* [threads][row_width]: one row a thread */
	size_t row_width;
} engine_buffers;

struct engine_session {
	const engine *e;
	arena memory;
	packed_runner *runner;
	int max_batch, max_text_len, max_rows, max_threads;
	engine_buffers buf;
	float *pixels;      /* [n*P][3*patch*patch] */
	float *embedded;    /* [n*P][Dv] */
	float *vision_x;    /* [n*(1+P)][Dv] */
	float *query_x;     /* [n*Q][Dq] */
	float *query_first; /* [Q][Dq]: LN(query_tokens), the same for every request */
	float *projected;   /* [n*Q][Dt] */
	float *text_x;      /* [n*(Q+T)][Dt] */
	float *final_rows;  /* [max_rows][Dt] */
	int32_t *positions; /* [n][Q+T] */
	float *mask;        /* [n][Q+T][Q+T] */
};

/* Rows of one stack in one run. */
typedef struct engine_rows {
	int n, len;
	const float *mask;    /* as block_run's */
	const float *encoder; /* [n*encoder_len][kv_width] */
	int encoder_len;
} engine_rows;

wn_code engine_block_open(engine_block *out, const blip2 *m, const block *b, precision p, wn_error *err);
void engine_block_close(engine_block *b);
/* x [n*len][hidden] in place. */
void engine_block_run(engine_session *s, const engine_block *b, float *x, const engine_rows *run);

/* ---- a layer in a session ---- */

/* How a row gets from f32 to a layer's operand. */
typedef struct row_source {
	const float *x;           /* [rows][width] */
	const norm_params *norm;  /* NULL: as it is */
	float eps;
} row_source;

/* Fills buf.in (and in_scale) for l from src, rows * l->in. */
void layer_take(engine_session *s, const layer *l, const row_source *src, size_t rows);
/* dst: what the layer writes: f32 or bf16; with int8 s32. */
void layer_product(engine_session *s, const layer *l, size_t rows, void *dst);
/* x += what the layer makes of buf.in. */
void layer_add(engine_session *s, const layer *l, size_t rows, float *x);
/* out [rows][out], f32 or (bf16 true) bf16: what the layer makes of buf.in. */
void layer_write(engine_session *s, const layer *l, size_t rows, void *out, bool bf16);
/* buf.in for `next` from what `l` makes of buf.in, behind the activation. */
void layer_activate(engine_session *s, const layer *l, activation f, const layer *next, size_t rows);
/* Operand of l from rows of bf16 or f32. */
void layer_take_context(engine_session *s, const layer *l, const void *x, bool bf16, size_t rows);

#endif
