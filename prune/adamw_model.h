/* adamw_model.h: an optimiser over all parameters of a model: one segment a parameter, in the model's order. */
#ifndef WINNOW_PRUNE_ADAMW_MODEL_H
#define WINNOW_PRUNE_ADAMW_MODEL_H

#include "model/blip2.h"
#include "prune/adamw.h"

/* *grads: a zeroed buffer of the weights' layout, 64-byte aligned; the caller frees it. */
wn_code adamw_open_model(adamw *a, float **grads, const adamw_options *opt, const blip2 *m, wn_error *err);

#endif
