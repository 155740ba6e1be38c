/* hidden_match.c: the fifth term of distill_loss.h, over a block's output instead of logits.
 *
 * The sums run over a fixed number of parts of the rows, whoever computes them, and the parts are added in order: the result
 * does not depend on the number of threads, and nothing is allocated. */
#include "model/parallel.h"
#include "prune/compress/distill_loss.h"

#define PARTS 64
#define GRAIN 8192 /* numbers that are worth a thread */

/* Adds up what one row compares. */
static void match_row(const float *s, const float *t, const hidden_map *m, double *difference, double *square)
{
	double d2 = 0, t2 = 0;
	if (m->to_dim) {
		for (int j = 0; j < m->width; j++) {
			const double y = t[m->to_dim[j]], d = s[j] - y;
			d2 += d * d;
			t2 += y * y;
		}
	} else {
#pragma omp simd reduction(+ : d2, t2)
		for (int j = 0; j < m->width; j++) {
			const double y = t[j], d = s[j] - y;
			d2 += d * d;
			t2 += y * y;
		}
	}
	*difference += d2;
	*square += t2;
}

/* d += scale * (s - t) for one row. */
static void pull_row(float *d, const float *s, const float *t, const hidden_map *m, double scale)
{
	if (m->to_dim) {
		for (int j = 0; j < m->width; j++)
			d[j] += (float)(scale * ((double)s[j] - t[m->to_dim[j]]));
	} else {
#pragma omp simd
		for (int j = 0; j < m->width; j++)
			d[j] += (float)(scale * ((double)s[j] - t[j]));
	}
}

/* The teacher's row of the student's row r; NULL: not compared. */
static const float *teacher_row(const float *teacher, const hidden_map *m, size_t r)
{
	if (!m->to_row)
		return teacher + r * (size_t)m->teacher_width;
	return m->to_row[r] < 0 ? NULL : teacher + (size_t)m->to_row[r] * (size_t)m->teacher_width;
}

double hidden_match(float *d, const float *student, const float *teacher, const hidden_map *map, double weight)
{
	double difference[PARTS] = {0}, square[PARTS] = {0}, difference_sum = 0, square_sum = 0;
	const size_t width = (size_t)map->width;
	if (weight == 0)
		return 0;
	/* A team is worth its waking for many numbers only. */
	PARALLEL_RANGE(PARTS, map->rows * width < GRAIN ? PARTS : 1, p0, p1)
	for (size_t part = p0; part < p1; part++) {
		const size_t end = parallel_bound(map->rows, (int)part + 1, PARTS);
		for (size_t r = parallel_bound(map->rows, (int)part, PARTS); r < end; r++) {
			const float *t = teacher_row(teacher, map, r);
			if (t)
				match_row(student + r * width, t, map, &difference[part], &square[part]);
		}
	}
	for (int part = 0; part < PARTS; part++) {
		difference_sum += difference[part];
		square_sum += square[part];
	}
	if (square_sum == 0)
		return 0;
	PARALLEL_RANGE(map->rows, 1 + GRAIN / (width + 1), r0, r1)
	for (size_t r = r0; r < r1; r++) {
		const float *t = teacher_row(teacher, map, r);
		if (t)
			pull_row(d + r * width, student + r * width, t, map, 2 * weight / square_sum);
	}
	return difference_sum / square_sum;
}
