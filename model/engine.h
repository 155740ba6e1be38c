/* engine.h: a model packed for answering requests: weights laid out for the products of a precision, once.
 *
 * Where blip2.h can be trained, an engine can only answer, and faster: layers of packed.h, activations in the type that the next
 * product reads, and no work whose result nobody reads (engine_run). Precisions:
 *     f32    results of blip2_forward up to the order of sums
 *     bf16   products of bf16 operands with f32 sums; residual stream, norms and softmax f32
 *     int8   Linear layers: s8 weights with a scale for each output, s8 activations with a scale for each row, exact s32 sums;
 *            attention on s8 operands with a scale for each row and head where its projections are int8 and the CPU has the
 *            kernel (attend.h), else as in bf16; the token table s8, with the scales of the logits' layer
 * A layer that the CPU has no kernel for runs in f32 instead, with the weights as the precision rounds them; engine_describe says so.
 * Source of the architecture: Blip2ForConditionalGeneration; of the quantisation: LLM.int8's vector-wise scales (arXiv 2208.07339).
 *
 * An `engine` is immutable and shared by threads; an `engine_session` belongs to one. engine_run itself allocates nothing, and no
 * primitive is made for a size of batch that was run before. */
#ifndef WINNOW_MODEL_ENGINE_H
#define WINNOW_MODEL_ENGINE_H

#include "base/error.h"
#include "model/blip2.h"
#include "model/precision.h"
#include "model/weight_source.h"

typedef struct engine engine;

typedef struct engine_options {
	precision precision;
	/* Where m's matrices come from, a layer at a time, when m has only the others (weight_source_fill_small); NULL: from m. In an int8
	 * engine, layers that a quantised model does not store as I8 run in bf16. */
	weight_source *source;
	/* What a layer runs in: `p`, or something else; NULL: always p. first: of its matrices, as blip2_param numbers them. */
	precision (*choose)(void *ctx, const param *first, precision p);
	void *ctx;
} engine_options;

/* Borrows m: norms, positions and biases are read from it, in f32 the token table too. The source is not needed any more. */
wn_code engine_open(engine **out, const blip2 *m, const engine_options *o, wn_error *err);
void engine_close(engine **e);
precision engine_precision(const engine *e);
/* "int8 brg:avx512_core_vnni, attention s8 avx512_vnni", "int8 weights in f32 gemm:jit, attention f32 oneDNN": what its layers really
 * run on. e's memory. */
const char *engine_describe(const engine *e);
/* Layers that run in p, weights rounded to it in f32 included. */
int engine_count_layers(const engine *e, precision p);

typedef struct engine_session engine_session;
/* Room for max_batch samples of max_text_len tokens and max_rows rows of logits; borrows e. Every run of it takes as many OpenMP
 * threads as the calling thread gets now, less when there is too little for them to do. WN_INVALID for sizes below 1 and more rows
 * than there are, WN_TOO_LARGE when the text does not fit the model's positions, WN_NOMEM, and engine_run's WN_INTERNAL: it computes
 * what no image changes. */
wn_code engine_session_open(engine_session **out, const engine *e, int max_batch, int max_text_len, int max_rows, wn_error *err);
void engine_session_close(engine_session **s);
/* Bytes of its memory, oneDNN's scratch apart. */
size_t engine_session_bytes(const engine_session *s);
/* Threads that each run takes. */
int engine_session_threads(const engine_session *s);
/* Primitives made so far; some already when it is opened. */
int engine_session_created(const engine_session *s);

/* Logits [count][V] of `count` rows (row = sample * (Q + T) + position, ascending; at most max_rows, else
 * WN_TOO_LARGE) into out. WN_INTERNAL where the threads of the session's opening are not to be had (inside a parallel region). Other
 * errors as blip2_forward's. */
wn_code engine_run(engine_session *s, const blip2_batch *b, const int32_t *rows, size_t count, float *out, wn_error *err);

/* Of the last run, the session's: [n][1+P][Dv] after post_layernorm, [n][Q][Dq]. */
const float *engine_vision_hidden(const engine_session *s);
const float *engine_qformer_hidden(const engine_session *s);

#endif
