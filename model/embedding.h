/* embedding.h: pixels to patch rows, token ids to text rows, and back.
 *
 * Source: Blip2VisionEmbeddings (patch convolution, class token, positions) and OPTDecoder (tokens, learned positions with
 * offset 2). The *_range functions make rows first to end - 1 alone, on the calling thread. */
#ifndef WINNOW_MODEL_EMBEDDING_H
#define WINNOW_MODEL_EMBEDDING_H

#include <stddef.h>
#include <stdint.h>

/* Rows of OPT's position table before position 0. */
#define POSITION_OFFSET 2

/* pixels [n][3][size][size] -> patches [n*count][3*patch*patch], columns in the order of the convolution's weight
 * [hidden][3][patch][patch]. The image is a grid of size / patch patches a side, further pixels are not seen (a convolution
 * with stride = patch); kept[count] are the grid indices to take, ascending, or NULL for all grid*grid of them. */
void patches_gather(float *patches, const float *pixels, int n, int size, int patch, const int32_t *kept, int count);
void patches_gather_range(float *patches, const float *pixels, int size, int patch, const int32_t *kept, int count, size_t first,
                          size_t end);

/* x [n][1+count][hidden]: row 0 = class_embedding, rows 1.. = embedded [n*count][hidden] + bias; plus position
 * [1+grid*grid][hidden]: its row 0 for the class token, row 1 + kept[k] for patch k (kept as above). */
void vision_rows_forward(float *x, const float *embedded, const float *bias, const float *class_embedding,
                         const float *position, int n, const int32_t *kept, int count, size_t hidden);
void vision_rows_range(float *x, const float *embedded, const float *bias, const float *class_embedding, const float *position,
                       const int32_t *kept, int count, size_t hidden, size_t first, size_t end);
/* From dx: d_embedded (written), and dbias, dclass, dposition (added). */
void vision_rows_backward(float *d_embedded, float *dbias, float *dclass, float *dposition, const float *dx, int n,
                          const int32_t *kept, int count, size_t hidden);

/* x [n][lead+t][hidden]: rows 0..lead-1 are there already; row lead+j = token[ids[j]]; then every row += position of
 * positions[n][lead+t] (offset included by the caller). */
void text_rows_forward(float *x, const float *token, const float *position, const int32_t *ids, const int32_t *positions, int n,
                       int lead, int t, size_t hidden);
/* dtoken, dposition += from dx. Lookups of padding_idx leave no gradient, as nn.Embedding(padding_idx) has it. */
void text_rows_backward(float *dtoken, float *dposition, const float *dx, const int32_t *ids, const int32_t *positions, int n,
                        int lead, int t, size_t hidden, int32_t padding_idx);

#endif
