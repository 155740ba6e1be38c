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
	bool training;
	int num_states;                  /* one a block when training, otherwise one for all of a kind */
	block_state states[MAX_BLOCKS];
	const float *inputs[MAX_BLOCKS]; /* each block's x in the last forward */
} stack_state;

/* Lays out what n samples of len rows need. Without training all blocks share the widest block's memory. */
bool stack_state_alloc(stack_state *st, arena *a, const stack *s, int n, int len, int encoder_len, bool training);

/* Returns the last block's output [n*len][hidden], inside st (or x itself for an empty stack). */
const float *stack_forward(const stack *s, const float *weights, stack_state *st, const float *x, const block_run *run);

/* d: in, the gradient of the output; out, that of x. */
void stack_backward(const stack *s, const float *weights, float *grads, const stack_state *st, float *d, float *d_encoder,
                    const block_run *run, const block_scratch *sc);

#endif
