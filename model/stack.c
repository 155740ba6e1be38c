/* stack.c: see stack.h. */
#include "model/stack.h"

#include <string.h>

/* A block as wide, in every respect, as the widest of the stack: its state holds any block's. */
static block widest(const stack *s)
{
	block w = s->blocks[0];
	for (int i = 1; i < s->num_blocks; i++) {
		const block *b = &s->blocks[i];
		attention_params *to[] = {&w.self, &w.cross};
		const attention_params *from[] = {&b->self, &b->cross};
		for (int j = 0; j < 2; j++) {
			/* scores grow with heads, projections with heads * head_dim: the product of the maxima covers both */
			if (from[j]->num_heads > to[j]->num_heads)
				to[j]->num_heads = from[j]->num_heads;
			if (from[j]->head_dim > to[j]->head_dim)
				to[j]->head_dim = from[j]->head_dim;
			if (from[j]->kv_width > to[j]->kv_width)
				to[j]->kv_width = from[j]->kv_width;
		}
		if (b->ffn_dim > w.ffn_dim)
			w.ffn_dim = b->ffn_dim;
	}
	return w;
}

bool stack_state_alloc(stack_state *st, arena *a, const stack *s, int n, int len, int encoder_len, bool keep)
{
	memset(st, 0, sizeof *st);
	st->keep = keep;
	if (s->num_blocks == 0)
		return true;
	if (!keep) {
		block w = widest(s);
		return block_state_alloc(&st->states[0], a, &w, n, len, encoder_len, false);
	}
	for (int i = 0; i < s->num_blocks; i++)
		if (!block_state_alloc(&st->states[i], a, &s->blocks[i], n, len, encoder_len, true))
			return false;
	return true;
}

const float *stack_forward(const stack *s, const float *weights, stack_state *st, const float *x, const block_run *run)
{
	for (int i = 0; i < s->num_blocks; i++) {
		st->inputs[i] = x;
		x = block_forward(&s->blocks[i], weights, &st->states[st->keep ? i : 0], x, run);
	}
	st->inputs[s->num_blocks] = x;
	return x;
}

void stack_backward(const stack *s, const float *weights, float *grads, const stack_state *st, float *d, float *d_encoder,
                    const block_run *run, const block_scratch *sc, stack_tap tap)
{
	for (int i = s->num_blocks - 1; i >= 0; i--) {
		if (tap.add)
			tap.add(tap.ctx, i, d);
		block_backward(&s->blocks[i], weights, grads, &st->states[i], st->inputs[i], d, d_encoder, run, sc);
	}
}
