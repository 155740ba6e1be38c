/* distill_loss.h: what a student is taught with: the terms of the distillation loss and their gradients, as pure functions.
 *
 * Per batch of n samples with R = 1 + tail_len rows of logits each (model/label_trie.h), over the vocabulary V. A label's score
 * is its log-probability s_l = sum over its path of log_softmax(logits[row])[token]. With the teacher's scores t_l:
 *
 *   nll       mean over samples that have a label of -s_label / tokens of its path              (the paper's label loss)
 *   kl        T^2 * mean over samples of the mean over the rows of the answer's path of
 *             KL(softmax(teacher/T) || softmax(student/T))                                      (Hinton et al. 2015);
 *             the answer is the label, or the teacher's most probable one where a sample has none
 *   pair      mean over samples and pairs a < b of labels of BCE(sigmoid((s_a-s_b)/M), sigmoid((t_a-t_b)/M)) minus its minimum:
 *             the student keeps the teacher's order and margins between candidate answers
 *   relation  mean over pairs i != j of samples of (g_ij - h_ij)^2, with g_ij = <p_i, p_j> of the student's label
 *             distributions p_i = softmax(s_i / M) and h_ij the teacher's: which samples are alike
 *
 * hidden (hidden_match) is the fifth: for every kept block, mean (student - teacher)^2 over the student's rows and dimensions
 * in units of the teacher's mean square there.
 *
 * Everything behind the logits is double: logits of any size are safe, and a term is exact where it is nearly zero. A term with
 * weight 0 is not computed and reads 0. A mean over nothing (no label, one sample, one label) is 0. Sums are made in a fixed
 * order: the result does not depend on the number of threads. A NaN among the logits of a term shows in that term. */
#ifndef WINNOW_PRUNE_COMPRESS_DISTILL_LOSS_H
#define WINNOW_PRUNE_COMPRESS_DISTILL_LOSS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "model/label_trie.h"

typedef struct distill_weights {
	double nll, kl, pair, relation, hidden;
	double temperature; /* T > 0 */
	double margin;      /* M > 0, in nats */
	/* The share of a whole batch's samples that have a label: nll is then weighted by the labelled samples of the batch, so
	 * that micro-batches with different shares add up. 0: by those of the call. */
	double labelled_share;
} distill_weights;

typedef struct distill_terms {
	double nll, kl, pair, relation, hidden; /* unweighted means */
	double total;                           /* weighted */
	int64_t samples, correct;               /* the most probable label is the sample's (or the teacher's where it has none) */
} distill_terms;

typedef struct distill_scratch distill_scratch;
/* For at most max_n samples (1 to 65536) of a model with `vocab` logits a row. The trie may go afterwards. WN_INVALID names what
 * is wrong with it: a path that does not start at row 0 or does not descend, a row beyond 1 + tail_len, a token beyond vocab. */
wn_code distill_scratch_open(distill_scratch **out, int max_n, const label_trie *trie, size_t vocab, wn_error *err);
void distill_scratch_close(distill_scratch **s);

/* logits [n][R][V]: in, the student's; out, n/batch times the gradient of the weighted sum (without hidden). teacher [n][R][V]
 * logits; may be NULL when kl, pair and relation have weight 0: samples without label are then not counted. labels [n], -1: none.
 * Adds the terms (hidden is the caller's to add, to total as well), each weighted by n/batch so that micro-batches of one batch
 * of `batch` samples add up (relation is then over pairs inside a micro-batch), to *terms. Allocates nothing. */
void distill_logits(distill_scratch *s, float *logits, const float *teacher, const int *labels, int n, int batch,
                    const distill_weights *w, distill_terms *terms);

typedef struct hidden_map {
	size_t rows;       /* of the student's output: samples * rows a sample */
	const int *to_row; /* [rows] -> the teacher's row, or -1: not compared (padding); NULL: the same */
	int width, teacher_width;
	const int *to_dim; /* [width] -> the teacher's dimension; NULL: the same */
} hidden_map;

/* d [rows][width] += weight * gradient of the mean described above; returns the unweighted mean. 0, and no gradient, when no row
 * is compared, when the teacher is 0 wherever it is compared, or when weight is 0 (nothing is read then). */
double hidden_match(float *d, const float *student, const float *teacher, const hidden_map *map, double weight);

#endif
