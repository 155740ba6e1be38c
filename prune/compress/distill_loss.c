/* distill_loss.c: see distill_loss.h.
 *
 * Four sweeps over a batch, each split over the threads by rows or by samples, none of which looks at another's work:
 *
 *   1. rows      the maximum and the log-sum-exp of the student's logits, and of the teacher's where a term reads them
 *   2. samples   the labels' scores
 *   3. samples   the terms over scores, and the gradient of each score, gathered by edge: labels with a common prefix share the
 *                edges (row, token) of that prefix
 *   4. rows      the gradient of the logits: the edges' own minus softmax times their sum; and the KL term, which needs both
 *                rows at the temperature T and exists only on the answer's path
 *
 * Then the samples' results are added up in their order.
 *
 * The exponential is a polynomial in double and not libm's, so that the loops over the vocabulary vectorise, and not ops.h's, in
 * float: where a student is sure, 1 - p and the gradient are what is left after cancellation. */
#include "prune/compress/distill_loss.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "model/parallel.h"

#define CHUNK     512  /* logits whose gradients are held in double at a time */
#define GRAIN     8192 /* logits that are worth a thread */
#define MAX_BATCH 65536

/* log_softmax(x / T) = (x - top) / T - log_sum. */
typedef struct row_norm {
	double top, log_sum;
} row_norm;

typedef struct trie_edge {
	int row;
	int32_t token;
} trie_edge;

typedef struct sample_result {
	int answer, best; /* labels; answer -1: nobody knows */
	double nll, pair, relation;
} sample_result;

struct distill_scratch {
	int max_n, num_labels, rows, num_edges;
	size_t vocab;
	int first_step[MAX_LABELS + 1];
	trie_edge *edges; /* [num_edges], distinct, by row, then token */
	int *first_edge;  /* [rows + 1]: where a row's edges start */
	int *step_edge;   /* [first_step[num_labels]]: the edge of each step */

	row_norm *student, *teacher;           /* [max_n][rows] at T = 1 */
	double *student_score, *teacher_score; /* [max_n][num_labels] */
	double *student_dist, *teacher_dist;   /* [max_n][num_labels]: softmax(score / M) */
	double *edge_grad;                     /* [max_n][num_edges]: of the total, by each edge's log-probability */
	double *row_kl;                        /* [max_n][rows]: the row's part of its sample's mean; 0 off the path */
	sample_result *results;                /* [max_n] */
};

/* One call of distill_logits. */
typedef struct distill_call {
	distill_scratch *s;
	const distill_weights *w;
	float *logits;
	const float *teacher;
	const int *labels;
	int n;
	double share;    /* n / batch */
	double labelled; /* what nll is divided by */
	bool scores;     /* a term compares the teacher's scores */
} distill_call;

static int by_row_and_token(const void *a, const void *b)
{
	const trie_edge *x = a, *y = b;
	if (x->row != y->row)
		return x->row < y->row ? -1 : 1;
	return (x->token > y->token) - (x->token < y->token);
}

static wn_code check_trie(const label_trie *t, size_t vocab, wn_error *err)
{
	if (t->num_labels < 1 || t->num_labels > MAX_LABELS || t->first_step[0] != 0 || t->tail_len < 0 || t->tail_len > INT16_MAX - 1)
		return wn_fail(err, WN_INVALID, "label trie: %d labels and %d inner nodes, expected 1 to %d labels", t->num_labels, t->tail_len,
		               MAX_LABELS);
	for (int l = 0; l < t->num_labels; l++) {
		if (t->first_step[l + 1] <= t->first_step[l])
			return wn_fail(err, WN_INVALID, "label trie: label %d has no token", l);
		for (int k = t->first_step[l]; k < t->first_step[l + 1]; k++) {
			const label_step *step = &t->steps[k];
			const bool first = k == t->first_step[l];
			if (step->row > t->tail_len || (first ? step->row != 0 : step->row <= step[-1].row))
				return wn_fail(err, WN_INVALID, "label trie: step %d of label %d reads row %d, expected %s of %d rows",
				               k - t->first_step[l], l, step->row, first ? "row 0" : "a later one", 1 + t->tail_len);
			if (step->token < 0 || (size_t)step->token >= vocab)
				return wn_fail(err, WN_INVALID, "label trie: label %d has token %d, the vocabulary has %zu", l, (int)step->token, vocab);
		}
	}
	return WN_OK;
}

/* Sorts the steps into distinct edges and finds each step's again. */
static void index_edges(distill_scratch *s, const label_trie *t)
{
	const int steps = t->first_step[t->num_labels];
	memcpy(s->first_step, t->first_step, sizeof s->first_step);
	for (int k = 0; k < steps; k++)
		s->edges[k] = (trie_edge){t->steps[k].row, t->steps[k].token};
	qsort(s->edges, (size_t)steps, sizeof *s->edges, by_row_and_token);
	for (int k = 0; k < steps; k++)
		if (k == 0 || by_row_and_token(&s->edges[s->num_edges - 1], &s->edges[k]))
			s->edges[s->num_edges++] = s->edges[k];
	for (int k = 0; k < steps; k++) {
		const trie_edge key = {t->steps[k].row, t->steps[k].token};
		const trie_edge *found = bsearch(&key, s->edges, (size_t)s->num_edges, sizeof key, by_row_and_token);
		s->step_edge[k] = (int)(found - s->edges);
	}
	for (int e = 0; e < s->num_edges; e++)
		s->first_edge[s->edges[e].row + 1]++;
	for (int r = 0; r < s->rows; r++)
		s->first_edge[r + 1] += s->first_edge[r];
}

wn_code distill_scratch_open(distill_scratch **out, int max_n, const label_trie *trie, size_t vocab, wn_error *err)
{
	*out = NULL;
	if (max_n < 1 || max_n > MAX_BATCH || vocab < 1 || vocab > INT32_MAX)
		return wn_fail(err, WN_INVALID, "distillation loss: %d samples and a vocabulary of %zu, expected 1 to %d and 1 to %d", max_n, vocab,
		               MAX_BATCH, INT32_MAX);
	wn_code code = check_trie(trie, vocab, err);
	if (code)
		return code;
	distill_scratch *s = calloc(1, sizeof *s);
	if (!s)
		return wn_fail(err, WN_NOMEM, "no memory for the distillation loss");
	s->max_n = max_n;
	s->num_labels = trie->num_labels;
	s->rows = 1 + trie->tail_len;
	s->vocab = vocab;
	const size_t n = (size_t)max_n, labels = (size_t)s->num_labels, rows = (size_t)s->rows, steps = (size_t)trie->first_step[labels];
	s->edges = calloc(steps, sizeof *s->edges);
	s->first_edge = calloc(rows + 1, sizeof *s->first_edge);
	s->step_edge = calloc(steps, sizeof *s->step_edge);
	s->student = calloc(n * rows, sizeof *s->student);
	s->teacher = calloc(n * rows, sizeof *s->teacher);
	s->row_kl = calloc(n * rows, sizeof *s->row_kl);
	s->student_score = calloc(n * labels, sizeof *s->student_score);
	s->teacher_score = calloc(n * labels, sizeof *s->teacher_score);
	s->student_dist = calloc(n * labels, sizeof *s->student_dist);
	s->teacher_dist = calloc(n * labels, sizeof *s->teacher_dist);
	s->edge_grad = calloc(n * steps, sizeof *s->edge_grad);
	s->results = calloc(n, sizeof *s->results);
	if (!s->edges || !s->first_edge || !s->step_edge || !s->student || !s->teacher || !s->row_kl || !s->student_score ||
	    !s->teacher_score || !s->student_dist || !s->teacher_dist || !s->edge_grad || !s->results) {
		distill_scratch_close(&s);
		return wn_fail(err, WN_NOMEM, "no memory for the distillation loss of %d samples", max_n);
	}
	index_edges(s, trie);
	*out = s;
	return WN_OK;
}

void distill_scratch_close(distill_scratch **s)
{
	if (!s || !*s)
		return;
	const distill_scratch *o = *s;
	void *const owned[] = {o->edges,         o->first_edge,    o->step_edge,    o->student,      o->teacher,   o->row_kl,
	                       o->student_score, o->teacher_score, o->student_dist, o->teacher_dist, o->edge_grad, o->results};
	for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
		free(owned[i]);
	free(*s);
	*s = NULL;
}

/* e^x for x <= 0, relative error below 1e-13; below -700 it is e^-700, which no float tells from 0. A NaN stays one. Cody-Waite
 * reduction to |r| <= ln2/2, then the series to r^11. */
static inline double exp_below(double x)
{
	x = x < -700.0 ? -700.0 : x;
	const double t = x * 1.4426950408889634 + 6755399441055744.0; /* adding 1.5 * 2^52 rounds to an integer in the low bits */
	const double n = t - 6755399441055744.0;
	const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
	double p = 1.0 / 39916800;
	p = p * r + 1.0 / 3628800;
	p = p * r + 1.0 / 362880;
	p = p * r + 1.0 / 40320;
	p = p * r + 1.0 / 5040;
	p = p * r + 1.0 / 720;
	p = p * r + 1.0 / 120;
	p = p * r + 1.0 / 24;
	p = p * r + 1.0 / 6;
	p = p * r + 0.5;
	p = p * r * r + r + 1.0;
	union {
		double f;
		uint64_t i;
	} bits = {.f = p}, in = {.f = t};
	bits.i += in.i << 52; /* times 2^n: the low bits of t hold n, the bias of 1.5 * 2^52 falls off the top */
	return bits.f;
}

static size_t chunk_at(size_t vocab, size_t c) { return vocab - c < CHUNK ? vocab - c : CHUNK; }

/* Of x / T, with inv_t = 1 / T, in one pass: the sum moves to the new maximum whenever there is one. */
static row_norm norm_of(const float *x, size_t vocab, double inv_t)
{
	float top = -INFINITY;
	double sum = 0;
	for (size_t c = 0; c < vocab; c += CHUNK) {
		const size_t len = chunk_at(vocab, c);
		float most = top;
		double part = 0;
#pragma omp simd reduction(max : most)
		for (size_t j = 0; j < len; j++)
			most = x[c + j] > most ? x[c + j] : most;
		if (most > top) {
			sum *= exp_below(inv_t * ((double)top - most));
			top = most;
		}
#pragma omp simd reduction(+ : part)
		for (size_t j = 0; j < len; j++)
			part += exp_below(inv_t * ((double)x[c + j] - top));
		sum += part;
	}
	return (row_norm){top, log(sum)};
}

/* g += a * softmax(x / T), for a part of a row. */
static void add_softmax(double *g, const float *x, size_t len, row_norm n, double inv_t, double a)
{
	const double f = a * exp(-n.log_sum);
#pragma omp simd
	for (size_t j = 0; j < len; j++)
		g[j] += f * exp_below(inv_t * (x[j] - n.top));
}

/* g += a * (softmax(x / T) - softmax(y / T)), for a part of a row; returns that part's share of KL(softmax(y/T) || softmax(x/T)). */
static double add_kl(double *g, const float *x, row_norm nx, const float *y, row_norm ny, size_t len, double inv_t, double a)
{
	const double fx = exp(-nx.log_sum), fy = exp(-ny.log_sum), shift = nx.log_sum - ny.log_sum;
	double kl = 0;
#pragma omp simd reduction(+ : kl)
	for (size_t j = 0; j < len; j++) {
		const double zx = inv_t * (x[j] - nx.top), zy = inv_t * (y[j] - ny.top), q = fy * exp_below(zy);
		g[j] += a * (fx * exp_below(zx) - q);
		kl += q * (zy - zx + shift);
	}
	return kl;
}

static double softplus(double x) { return (x > 0 ? x : 0) + log1p(exp(-fabs(x))); }
static double sigmoid(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }

static int largest(const double *x, int count)
{
	int best = 0;
	for (int l = 1; l < count; l++)
		if (x[l] > x[best])
			best = l;
	return best;
}

/* p = softmax(x / margin). */
static void label_softmax(double *p, const double *x, int count, double margin)
{
	const double top = x[largest(x, count)];
	double sum = 0;
	for (int l = 0; l < count; l++)
		sum += p[l] = exp((x[l] - top) / margin);
	for (int l = 0; l < count; l++)
		p[l] /= sum;
}

static double dot(const double *a, const double *b, int count)
{
	double sum = 0;
	for (int l = 0; l < count; l++)
		sum += a[l] * b[l];
	return sum;
}

/* Are the teacher's scores of this sample wanted? Without a label they say what its answer is. */
static bool reads_teacher(const distill_call *c, size_t i) { return c->teacher && (c->scores || c->labels[i] < 0); }

/* Sweep 1. r: row of the batch. */
static void measure_row(const distill_call *c, size_t r)
{
	distill_scratch *s = c->s;
	s->student[r] = norm_of(c->logits + r * s->vocab, s->vocab, 1);
	if (reads_teacher(c, r / (size_t)s->rows))
		s->teacher[r] = norm_of(c->teacher + r * s->vocab, s->vocab, 1);
}

/* Log-probabilities of a sample's labels from its rows of logits. */
static void score_labels(double *score, const distill_scratch *s, const float *logits, const row_norm *norms)
{
	for (int l = 0; l < s->num_labels; l++) {
		score[l] = 0;
		for (int k = s->first_step[l]; k < s->first_step[l + 1]; k++) {
			const trie_edge *e = &s->edges[s->step_edge[k]];
			score[l] += logits[(size_t)e->row * s->vocab + (size_t)e->token] - norms[e->row].top - norms[e->row].log_sum;
		}
	}
}

/* Sweep 2. */
static void score_sample(const distill_call *c, size_t i)
{
	distill_scratch *s = c->s;
	const size_t labels = (size_t)s->num_labels, rows = (size_t)s->rows, at = i * rows * s->vocab;
	double *student = s->student_score + i * labels, *teacher = s->teacher_score + i * labels;
	score_labels(student, s, c->logits + at, s->student + i * rows);
	s->results[i] = (sample_result){.answer = c->labels[i], .best = largest(student, s->num_labels)};
	if (reads_teacher(c, i)) {
		score_labels(teacher, s, c->teacher + at, s->teacher + i * rows);
		if (c->labels[i] < 0)
			s->results[i].answer = largest(teacher, s->num_labels);
	}
	if (c->w->relation != 0) {
		label_softmax(s->student_dist + i * labels, student, s->num_labels, c->w->margin);
		label_softmax(s->teacher_dist + i * labels, teacher, s->num_labels, c->w->margin);
	}
}

/* The mean over pairs of labels; d += scale * its gradient. With u = (s_a - s_b) / M and the teacher's w,
 * BCE(sigmoid(u), sigmoid(w)) - BCE(sigmoid(w), sigmoid(w)) = softplus(u) - softplus(w) - sigmoid(w) * (u - w). */
static double pair_term(double *d, const double *student, const double *teacher, int count, double margin, double scale)
{
	const double pairs = 0.5 * count * (count - 1);
	double sum = 0;
	for (int a = 0; a < count; a++)
		for (int b = a + 1; b < count; b++) {
			const double u = (student[a] - student[b]) / margin, w = (teacher[a] - teacher[b]) / margin, y = sigmoid(w);
			const double g = scale * (sigmoid(u) - y) / (margin * pairs);
			sum += softplus(u) - softplus(w) - y * (u - w);
			d[a] += g;
			d[b] -= g;
		}
	return pairs > 0 ? sum / pairs : 0;
}

/* Sample i's part of the sum over pairs of samples; d += scale * the gradient of the whole sum through p_i, in which every pair
 * stands twice: 4 * scale * sum over j of (g_ij - h_ij) p_j, through the softmax. */
static double relation_term(double *d, const distill_call *c, size_t i, double scale)
{
	const distill_scratch *s = c->s;
	const size_t labels = (size_t)s->num_labels;
	const double *p = s->student_dist, *h = s->teacher_dist, *pi = p + i * labels;
	double dp[MAX_LABELS] = {0}, sum = 0;
	for (size_t j = 0; j < (size_t)c->n; j++) {
		if (j == i)
			continue;
		const double diff = dot(pi, p + j * labels, s->num_labels) - dot(h + i * labels, h + j * labels, s->num_labels);
		sum += diff * diff;
		for (size_t l = 0; l < labels; l++)
			dp[l] += 4 * scale * diff * p[j * labels + l];
	}
	const double mean = dot(pi, dp, s->num_labels);
	for (size_t l = 0; l < labels; l++)
		d[l] += pi[l] * (dp[l] - mean) / c->w->margin;
	return sum;
}

static int path_length(const distill_scratch *s, int label) { return s->first_step[label + 1] - s->first_step[label]; }

/* Sweep 3: what the sample's scores give, and what they get. */
static void teach_scores(const distill_call *c, size_t i)
{
	distill_scratch *s = c->s;
	const distill_weights *w = c->w;
	sample_result *result = &s->results[i];
	const double *student = s->student_score + i * (size_t)s->num_labels, *teacher = s->teacher_score + i * (size_t)s->num_labels;
	double d[MAX_LABELS] = {0}, *grad = s->edge_grad + i * (size_t)s->num_edges;
	const int label = c->labels[i];
	if (w->nll != 0 && label >= 0) {
		result->nll = -student[label] / path_length(s, label);
		d[label] -= w->nll * c->share / (c->labelled * path_length(s, label));
	}
	if (w->pair != 0)
		result->pair = pair_term(d, student, teacher, s->num_labels, w->margin, w->pair * c->share / c->n);
	if (w->relation != 0 && c->n > 1)
		result->relation = relation_term(d, c, i, w->relation * c->share / ((double)c->n * (c->n - 1)));
	memset(grad, 0, (size_t)s->num_edges * sizeof *grad);
	for (int l = 0; l < s->num_labels; l++)
		for (int k = s->first_step[l]; k < s->first_step[l + 1]; k++)
			grad[s->step_edge[k]] += d[l];
}

/* The share that a row has in its sample's mean of KL: 0 off the answer's path. */
static double kl_share(const distill_call *c, size_t i, int row)
{
	const distill_scratch *s = c->s;
	const int answer = s->results[i].answer;
	if (c->w->kl == 0 || answer < 0)
		return 0;
	for (int k = s->first_step[answer]; k < s->first_step[answer + 1]; k++)
		if (s->edges[s->step_edge[k]].row == row)
			return 1.0 / path_length(s, answer);
	return 0;
}

/* Sweep 4: the logits of row r of the batch become their gradient. */
static void write_row(const distill_call *c, size_t r)
{
	distill_scratch *s = c->s;
	const size_t i = r / (size_t)s->rows, vocab = s->vocab;
	const int row = (int)(r % (size_t)s->rows), end = s->first_edge[row + 1];
	const double *grad = s->edge_grad + i * (size_t)s->num_edges, temperature = c->w->temperature, inv_t = 1 / temperature;
	const double share = kl_share(c, i, row);
	float *x = c->logits + r * vocab;
	const float *y = c->teacher ? c->teacher + r * vocab : NULL;
	double through = 0, kl = 0;
	bool touched = share > 0;
	for (int e = s->first_edge[row]; e < end; e++) {
		through += grad[e];
		touched |= grad[e] != 0;
	}
	s->row_kl[r] = 0;
	if (!touched) {
		memset(x, 0, vocab * sizeof *x);
		return;
	}
	const row_norm own = s->student[r];
	row_norm soft = own, target = own;
	if (share > 0) {
		if (inv_t != 1)
			soft = norm_of(x, vocab, inv_t);
		target = norm_of(y, vocab, inv_t);
	}
	/* T^2 * KL, whose gradient has a 1/T */
	const double pull = c->w->kl * c->share * share * temperature / c->n;
	int e = s->first_edge[row];
	for (size_t at = 0; at < vocab; at += CHUNK) {
		const size_t len = chunk_at(vocab, at);
		double g[CHUNK] = {0};
		if (through != 0)
			add_softmax(g, x + at, len, own, 1, -through);
		if (share > 0)
			kl += add_kl(g, x + at, soft, y + at, target, len, inv_t, pull);
		for (; e < end && (size_t)s->edges[e].token < at + len; e++)
			g[(size_t)s->edges[e].token - at] += grad[e];
		for (size_t j = 0; j < len; j++)
			x[at + j] = (float)g[j];
	}
	s->row_kl[r] = share * kl;
}

/* The samples' results, in their order. */
static void add_terms(const distill_call *c, distill_terms *terms)
{
	const distill_scratch *s = c->s;
	const distill_weights *w = c->w;
	double nll = 0, kl = 0, pair = 0, relation = 0;
	for (size_t i = 0; i < (size_t)c->n; i++) {
		const sample_result *r = &s->results[i];
		nll += r->nll;
		pair += r->pair;
		relation += r->relation;
		for (size_t k = i * (size_t)s->rows; k < (i + 1) * (size_t)s->rows; k++)
			kl += s->row_kl[k];
		terms->samples += r->answer >= 0;
		terms->correct += r->answer >= 0 && r->answer == r->best;
	}
	nll *= c->labelled > 0 ? c->share / c->labelled : 0;
	kl *= c->share * w->temperature * w->temperature / c->n;
	pair *= c->share / c->n;
	relation *= c->n > 1 ? c->share / ((double)c->n * (c->n - 1)) : 0;
	terms->nll += nll;
	terms->kl += kl;
	terms->pair += pair;
	terms->relation += relation;
	terms->total += w->nll * nll + w->kl * kl + w->pair * pair + w->relation * relation;
}

void distill_logits(distill_scratch *s, float *logits, const float *teacher, const int *labels, int n, int batch,
                    const distill_weights *w, distill_terms *terms)
{
	distill_call c = {.s = s, .w = w, .logits = logits, .teacher = teacher, .labels = labels, .n = n, .share = (double)n / batch,
	                  .scores = w->pair != 0 || w->relation != 0};
	for (int i = 0; i < n; i++)
		c.labelled += labels[i] >= 0;
	if (w->labelled_share > 0)
		c.labelled = w->labelled_share * n;
	const size_t rows = (size_t)n * (size_t)s->rows, grain = 1 + GRAIN / s->vocab;
	PARALLEL_RANGE(rows, grain, r0, r1)
	for (size_t r = r0; r < r1; r++)
		measure_row(&c, r);
	PARALLEL_RANGE((size_t)n, grain, i0, i1)
	for (size_t i = i0; i < i1; i++)
		score_sample(&c, i);
	PARALLEL_RANGE((size_t)n, grain, i0, i1)
	for (size_t i = i0; i < i1; i++)
		teach_scores(&c, i);
	PARALLEL_RANGE(rows, grain, r0, r1)
	for (size_t r = r0; r < r1; r++)
		write_row(&c, r);
	add_terms(&c, terms);
}
