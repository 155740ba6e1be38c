/* bench_train.c: see bench_train.h. The step is the trainer's own sequence of calls, without data loading. */
#include "prune/bench_train.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "prune/adamw.h"

#define WARM_UP_STEPS 2

typedef struct inputs {
	float *pixels;
	int32_t *ids, *labels;
	float *grads;
	adamw_segment *segments;
} inputs;

static void inputs_free(inputs *in)
{
	free(in->pixels);
	free(in->ids);
	free(in->labels);
	free(in->grads);
	free(in->segments);
}

static wn_code inputs_make(inputs *in, const blip2 *m, const bench_train_options *o, wn_error *err)
{
	const blip2_config *c = blip2_get_config(m);
	const size_t tokens = (size_t)o->batch * (size_t)o->tokens;
	const size_t pixels = (size_t)o->batch * 3 * (size_t)c->image_size * (size_t)c->image_size;
	in->pixels = malloc(pixels * sizeof *in->pixels);
	in->ids = malloc(tokens * sizeof *in->ids);
	in->labels = malloc(tokens * sizeof *in->labels);
	in->grads = malloc(blip2_weights_count(m) * sizeof *in->grads);
	in->segments = malloc(blip2_num_params(m) * sizeof *in->segments);
	if (!in->pixels || !in->ids || !in->labels || !in->grads || !in->segments)
		return wn_fail(err, WN_NOMEM, "out of memory for a batch of %d", o->batch);
	unsigned seed = 1; /* only has to be dense and the same every time */
	for (size_t i = 0; i < pixels; i++)
		in->pixels[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
	for (size_t i = 0; i < tokens; i++) {
		in->ids[i] = (int32_t)(((seed = seed * 1664525u + 1013904223u) >> 8) % (unsigned)c->vocab_size);
		in->labels[i] = (int)(i % (size_t)o->tokens) >= o->tokens - o->label_tokens ? in->ids[i] : -100;
	}
	for (size_t i = 0; i < blip2_num_params(m); i++) {
		const param *p = blip2_param(m, i);
		in->segments[i] = (adamw_segment){.offset = p->offset, .count = p->count, .decay = p->decay};
	}
	return WN_OK;
}

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

wn_code bench_train(blip2 *m, const bench_train_options *o, double *times, wn_error *err)
{
	const size_t count = blip2_weights_count(m);
	const adamw_options opt = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.05};
	const blip2_session_options so = {
		.max_batch = o->batch, .max_text_len = o->tokens, .training = true, .use_vision = true, .bf16 = o->bf16};
	inputs in = {0};
	adamw optimiser = {0};
	blip2_session *s = NULL;
	wn_code rc = inputs_make(&in, m, o, err);
	if (!rc)
		rc = adamw_open(&optimiser, &opt, count, in.segments, blip2_num_params(m), err);
	if (!rc)
		rc = blip2_session_open(&s, m, &so, err);
	const blip2_batch b = {.n = o->batch, .text_len = o->tokens, .pixel_values = in.pixels, .input_ids = in.ids, .labels = in.labels};
	for (int i = -WARM_UP_STEPS; i < o->runs && !rc; i++) {
		const double start = now_ms();
		float loss = 0;
		memset(in.grads, 0, count * sizeof *in.grads);
		rc = blip2_forward(s, &b, err);
		if (!rc)
			rc = blip2_backward(s, &b, 1, in.grads, &loss, NULL, NULL, err);
		adamw_step(&optimiser, blip2_weights(m), in.grads, 1e-4, grad_clip_scale(grad_norm(in.grads, count), 1));
		if (i >= 0)
			times[i] = now_ms() - start;
	}
	blip2_session_close(&s);
	adamw_close(&optimiser);
	inputs_free(&in);
	return rc;
}
