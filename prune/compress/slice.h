/* slice.h: the smaller model that keeps some structures of a larger one.
 *
 * Every parameter of the result is gathered from the parameter of the same role, axis by axis (model/blip2.h, axis). Scores
 * of attention are divided by sqrt(head_dim): when a head keeps d of D dimensions its query projection is multiplied by
 * sqrt(d/D), so that what is kept of the product stays what it was.
 *
 * Text positions are learned, and run over the queries and then the text: token t stands at num_query_tokens + t. When queries
 * go, the kept ones take their rows along, and so do the text's positions, which are now lower by as many. The last rows of the
 * table, which a text as long as before does not reach, are those of the queries that went. */
#ifndef WINNOW_PRUNE_COMPRESS_SLICE_H
#define WINNOW_PRUNE_COMPRESS_SLICE_H

#include "prune/compress/keep.h"

/* *out is a new model of shape k->to; m is not changed. */
wn_code slice_model(blip2 **out, const blip2 *m, const keep *k, wn_error *err);

#endif
