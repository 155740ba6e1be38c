/* stack.h: a sequence of blocks of one hidden width with the state of one run: vision, Q-Former or text. */
#ifndef WINNOW_MODEL_STACK_H
#define WINNOW_MODEL_STACK_H

#include <stdbool.h>

#include "base/arena.h"
#include "model/block.h"

typedef struct stack {
	int hidden;
	int num_blocks;
	block blocks[MAX_BLOCKS];
} stack;

typedef struct stack_state {
	bool keep;                       /* every block has a state of its own; otherwise all share the widest one's */
	block_state states[MAX_BLOCKS];
	const float *inputs[MAX_BLOCKS + 1]; /* each block's x in the last forward, and the last one's output */
} stack_state;

/* Lays out what n samples of len rows need. A backward, or a look at what a block computed, needs keep. */
bool stack_state_alloc(stack_state *st, arena *a, const stack *s, int n, int len, int encoder_len, bool keep);

/* Returns the last block's output [n*len][hidden], inside st (or x itself for an empty stack). */
const float *stack_forward(const stack *s, const float *weights, stack_state *st, const float *x, const block_run *run);

/* Adds to d, the gradient of a block's output, what a loss on that output itself contributes. */
typedef struct stack_tap {
	void (*add)(void *ctx, int block, float *d); /* NULL: nothing */
	void *ctx;
} stack_tap;

/* d: in, the gradient of the output; out, that of x. */
void stack_backward(const stack *s, const float *weights, float *grads, const stack_state *st, float *d, float *d_encoder,
                    const block_run *run, const block_scratch *sc, stack_tap tap);

#endif
