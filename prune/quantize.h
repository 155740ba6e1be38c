/* quantize.h: which layers of a model can run in int8.
 *
 * Every layer is tried alone, all others in f32: what it costs is how far the logits turn away from the f32 model's, and what share of
 * the labelled ads it still gets right. Layers that cost too much stay in bf16; of the others the dearest follow them until the
 * whole model is near enough. Weights have a scale for each output (symmetric); activations have one for each row, taken when they
 * run: a calibration decides which layers, not their ranges. Source: vector-wise quantisation of LLM.int8 (arXiv 2208.07339). */
#ifndef WINNOW_PRUNE_QUANTIZE_H
#define WINNOW_PRUNE_QUANTIZE_H

#include <signal.h>

#include "base/error.h"
#include "model/engine.h"

typedef struct quantize_score {
	double cosine;   /* of logits with the f32 model's, the mean over samples */
	double accuracy; /* NaN without labels */
} quantize_score;

/* What an engine of these options makes of the calibration samples, compared with the f32 one. */
typedef struct quantize_probe {
	wn_code (*score)(void *ctx, const engine_options *o, quantize_score *out, wn_error *err);
	void *ctx;
} quantize_probe;

typedef struct quantize_options {
	bool quick;          /* layers are tried alone only when the whole model in int8 falls short */
	double layer_cosine; /* a layer that alone stays below this is kept in bf16 */
	double model_cosine; /* layers follow it there until the model reaches this, */
	double max_loss;     /* and loses no more accuracy than this (a share) */
	void (*progress)(void *ctx, size_t done, size_t total, const char *layer); /* may be NULL */
	void *ctx;
	volatile sig_atomic_t *stop; /* may be NULL: WN_CANCELLED */
} quantize_options;

typedef struct quantize_layer {
	const param *first;    /* of its matrices (a fused layer has several), the model's */
	precision precision;   /* int8 or bf16 */
	bool tried;
	quantize_score alone;  /* when it was tried: in int8, the others in f32 */
} quantize_layer;

typedef struct quantize_plan {
	quantize_layer *layers; /* owned */
	size_t count;
	quantize_score f32, whole;
	bool reached;           /* model_cosine and max_loss */
} quantize_plan;

/* How many layers there are to try. */
size_t quantize_count_layers(const blip2 *m);
wn_code quantize_plan_make(quantize_plan *out, const blip2 *m, const quantize_probe *probe, const quantize_options *o, wn_error *err);
void quantize_plan_close(quantize_plan *p);
/* The types to store m's parameters in, [blip2_num_params(m)]: matrices I8 or BF16, the rest F32. plan NULL: all matrices BF16. */
void quantize_dtypes(dtype *out, const blip2 *m, const quantize_plan *plan);

#endif
