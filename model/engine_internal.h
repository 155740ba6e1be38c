/* engine_internal.h: the fields of an engine, its session and the session's lanes, for engine.c (layers), engine_session.c (memory),
 * engine_run.c (the forward of three stacks), engine_block.c (one block), engine_attention.c (between its layers) and engine_layer.c
 * (one Linear in its precision).
 *
 * A run is one parallel region. Each of its threads is a lane, which owns the same rows of a stack from the first block to the last,
 * and works on them alone, products included. Rows meet in attention only: keys and values go to buffers that all lanes read, behind
 * one barrier. Two sets of them take turns, so that a lane may write the next ones while another still reads the last. */
#ifndef WINNOW_MODEL_ENGINE_INTERNAL_H
#define WINNOW_MODEL_ENGINE_INTERNAL_H

#include "base/arena.h"
#include "model/attend.h"
#include "model/blip2_internal.h"
#include "model/engine.h"
#include "model/packed.h"

/* One Linear. What it reads and writes depends on its precision:
 *     f32:  f32 -> f32      bf16: bf16 -> f32 or bf16      int8: s8 with row scales -> s32 */
typedef struct layer {
	packed_linear *packed;
	element src, dst;
	size_t in, out;
	precision precision; /* rounded weights in f32 included */
	float *scale;      /* int8: [out], owned */
	const float *bias; /* int8: [out] or NULL, the model's: added where dst is read */
} layer;

typedef struct layer_options {
	precision precision;
	bool accumulate;  /* f32, bf16: dst is added to what is there, f32 */
	bool wide;        /* bf16: dst is f32 */
} layer_options;

/* [out][in], in f32 or already s8 with a scale for each output, and [out] or NULL. */
typedef struct layer_weights {
	const float *f32;
	const int8_t *q;
	const float *scale;
	const float *bias;
} layer_weights;

/* Copies what w points to, but for an int8 layer's bias. */
wn_code layer_open(layer *l, const layer_options *o, const layer_weights *w, size_t in, size_t out, wn_error *err);
void layer_close(layer *l);
/* q, scale [out]: rows of w [out][in], symmetric, each with its scale. */
void engine_quantize_rows(int8_t *q, float *scale, const float *w, size_t in, size_t out);

/* While an engine is opened: where a layer's weights come from, and buffers for one of them. */
typedef struct engine_opener {
	const blip2 *m;
	const engine_options *o;
	float *f32, *scale;
	int8_t *q;
	size_t f32_room, scale_room, q_room;
} engine_opener;

/* What a layer is for. */
typedef enum layer_kind {
	LAYER_PLAIN,
	LAYER_ACCUMULATES, /* onto the residual stream */
	LAYER_WIDE,        /* f32 results */
	LAYER_PIXELS, /* wide, never int8: few rows of many values of all sizes would lose more there than they save */
} layer_kind;
/* The layer whose weights [out][in] start at `weight` of m's buffer; bias: an offset or NO_PARAM. */
wn_code engine_open_layer(engine_opener *op, layer *l, layer_kind kind, size_t weight, size_t bias, size_t in, size_t out, wn_error *err);

/* Tokens' vectors: f32 rows of the model, or bf16, or s8 with a scale for each row. */
typedef struct token_table {
	const float *f32;
	float *own; /* f32, when the model has none */
	uint16_t *half;
	int8_t *q;
	float *scale;
} token_table;

typedef struct engine_attention {
	int num_heads, head_dim;
	int kv_width; /* 0: self-attention */
	element type; /* of its operands: f32, bf16, or s8 with a scale for each row and head */
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
	token_table tokens;
	char description[128];
};

typedef struct engine_session engine_session;

/* One thread's share of a run: buffers between its products, rows counted from its own first one. */
typedef struct engine_lane {
	engine_session *s;
	int id;
	int turn;          /* the set of shared operands that the next attention writes */
	packed_runner *runner;
	void *in;          /* a product's operand */
	float *in_scale;   /* [rows]: of s8 rows */
	void *raw;         /* what a product wrote */
	void *queries;     /* [rows][inner]: attention's, of rows that do not follow each other */
	float *scores;     /* attend_job's scratch; without a kernel [heads][rows][keys] of one sample */
	void *context;     /* [rows][inner] */
	float *row;        /* the widest row */
} engine_lane;

/* Rows of attention's queries, keys or values, all heads of them. */
typedef struct operand {
	void *data;   /* f32, bf16 or s8 */
	float *scale; /* [rows][parts * heads]: of s8 */
} operand;

struct engine_session {
	const engine *e;
	arena memory;
	int max_batch, max_text_len, max_rows, num_lanes;
	engine_lane *lanes; /* [num_lanes] */
	engine_lane wide;   /* for logits: not a thread's, its products use the whole team */
	operand qkv[2], kv[2]; /* attention's, shared */
	float *pixels;      /* [n*P][3*patch*patch] */
	float *embedded;    /* [n*P][Dv] */
	float *vision_x;    /* [n*(1+P)][Dv] */
	float *query_x;     /* [n*Q][Dq] */
	float *query_first; /* [Q][Dq]: query tokens behind the first block's self-attention, the same for every request */
	float *projected;   /* [n*Q][Dt] */
	float *text_x;      /* [n*(Q+T)][Dt] */
	float *final_rows;  /* [max_rows][Dt] */
	int32_t *positions; /* [n][Q+T] */
	float *mask;        /* [n][Q+T][Q+T] */
};

typedef struct row_range {
	size_t first, count;
} row_range;

/* l's share of rows that lie behind each other. */
row_range lane_share(const engine_lane *l, size_t rows);

/* Rows of one stack in one run. */
typedef struct engine_rows {
	int n, len;
	const float *mask;    /* as block_run's */
	const float *encoder; /* [n*encoder_len][kv_width] */
	int encoder_len;
	/* Of a last block: the only rows whose results are read, and where they go, [num_kept][hidden]; NULL: all, in place. */
	const int32_t *kept;
	size_t num_kept;
	float *kept_x;
} engine_rows;

/* Token id's vector, [Dt]. */
void engine_token(const engine *e, int32_t id, float *out);

/* Columns of an operand. */
typedef struct engine_view {
	const char *data;
	size_t stride;       /* elements a row */
	const float *scale;  /* of s8: row i's, for every head, from scale + i * scales on */
	size_t scales;
} engine_view;

typedef struct engine_operands {
	engine_view q, k, v; /* of the first sample's first row */
} engine_operands;

wn_code engine_attention_open(engine_attention *out, engine_opener *op, const attention_params *p, int hidden, wn_error *err);
/* Makes own rows of q, and everybody's rows of k and v: returns when all of them are there. x [n*len][hidden]. */
engine_operands engine_attention_operands(engine_lane *l, const engine_block *b, const engine_attention *a, const float *x,
					  const engine_rows *run);
/* Leaves `in` of a->out for the rows of `share`. */
void engine_attend(engine_lane *l, const engine_attention *a, bool causal, const engine_operands *o, const engine_rows *run, row_range share);

wn_code engine_block_open(engine_block *out, engine_opener *op, const block *b, wn_error *err);
void engine_block_close(engine_block *b);
/* Calls f for every layer of the block. */
void engine_block_layers(const engine_block *b, void (*f)(void *ctx, const layer *l), void *ctx);
/* l's share of x [n*len][hidden], in place. All lanes must call it with the same run: they wait for each other once an attention. */
void engine_block_run(engine_lane *l, const engine_block *b, float *x, const engine_rows *run);
/* Its two parts: self-attention, and what is behind it. */
void engine_block_attend(engine_lane *l, const engine_block *b, float *x, const engine_rows *run);
void engine_block_finish(engine_lane *l, const engine_block *b, float *x, const engine_rows *run);
/* Fills query_first: once, when a session is opened. */
wn_code engine_prepare_queries(engine_session *s, wn_error *err);

/* ---- a layer in a lane ---- */

/* How a row gets from f32 to a layer's operand. */
typedef struct row_source {
	const float *x;           /* [rows][width] */
	const norm_params *norm;  /* NULL: as it is */
	float eps;
} row_source;

/* Fills in (and in_scale) for y from src, rows * y->in. */
void layer_take(engine_lane *l, const layer *y, const row_source *src, size_t rows);
/* x += what the layer makes of `in`. */
void layer_add(engine_lane *l, const layer *y, size_t rows, float *x);
/* out [rows][out], f32 or (bf16 true) bf16: what the layer makes of `in`. */
void layer_write(engine_lane *l, const layer *y, size_t rows, void *out, bool bf16);
/* out [rows][out] in s8, a scale for each part of `width` columns: what an int8 layer makes of `in`. */
void layer_write_parts(engine_lane *l, const layer *y, size_t rows, size_t width, int8_t *out, float *scale);
/* `in` for `next` from what y makes of `in`, behind the activation. */
void layer_activate(engine_lane *l, const layer *y, activation f, const layer *next, size_t rows);
/* Where attention may write rows of f32 or bf16 for y to read, and what makes them y's operand. */
void *layer_context(const engine_lane *l, const layer *y, bool bf16);
void layer_take_context(engine_lane *l, const layer *y, bool bf16, size_t rows);

#endif
