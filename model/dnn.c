/* dnn.c: see dnn.h.
 *
 * f32 products go through oneDNN's sgemm, which needs no state. bf16 products are matmul primitives: each thread keeps its
 * own small hash table of them, so executing one takes no lock and shares no scratchpad. What oneDNN cannot do in bf16 is
 * done in f32. */
#include "model/dnn.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/dnn_internal.h"
#include "model/ops.h"

void dnn_check(dnnl_status_t st, const char *what)
{
	if (st == dnnl_success)
		return;
	fprintf(stderr, "winnow: oneDNN %s failed with status %d\n", what, (int)st);
	abort();
}

void dnn_sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
               const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
	dnn_check(dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc), "sgemm");
}

typedef struct gemm_key {
	int64_t m, n, k, lda, ldb, ldc;
	int64_t flags; /* trans_a, trans_b, accumulate */
} gemm_key;

typedef struct gemm_entry {
	gemm_key key;
	dnnl_primitive_t primitive; /* NULL: the slot is free */
	dnnl_memory_t a, b, c;      /* descriptors; data handles are set at every call */
} gemm_entry;

#define TABLE_SLOTS 512 /* shapes in use are a few dozen; a full table is emptied and refilled */

typedef struct gemm_table {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	int used;
	gemm_entry slots[TABLE_SLOTS];
} gemm_table;

static pthread_key_t table_key;
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_clear(gemm_table *t)
{
	for (int i = 0; i < TABLE_SLOTS; i++) {
		gemm_entry *e = &t->slots[i];
		if (!e->primitive)
			continue;
		dnnl_primitive_destroy(e->primitive);
		dnnl_memory_destroy(e->a);
		dnnl_memory_destroy(e->b);
		dnnl_memory_destroy(e->c);
		memset(e, 0, sizeof *e);
	}
	t->used = 0;
}

static void table_free(void *p)
{
	gemm_table *t = p;
	table_clear(t);
	dnnl_stream_destroy(t->stream);
	dnnl_engine_destroy(t->engine);
	free(t);
}

/* Tables end with their threads. The main thread's is left to the end of the process: exit() runs the destructors of
 * oneDNN's own statics, some before any handler of ours, and a primitive must not be destroyed after them. */
static void table_key_create(void)
{
	dnn_check(pthread_key_create(&table_key, table_free) ? dnnl_out_of_memory : dnnl_success, "table key");
}

static gemm_table *this_table(void)
{
	pthread_once(&table_once, table_key_create);
	gemm_table *t = pthread_getspecific(table_key);
	if (t)
		return t;
	t = calloc(1, sizeof *t);
	dnn_check(t ? dnnl_success : dnnl_out_of_memory, "table");
	dnn_check(dnnl_engine_create(&t->engine, dnnl_cpu, 0), "engine");
	dnn_check(dnnl_stream_create(&t->stream, t->engine, dnnl_stream_default_flags), "stream");
	dnn_check(pthread_setspecific(table_key, t) ? dnnl_out_of_memory : dnnl_success, "table");
	return t;
}

dnnl_status_t dnn_desc(memory_desc *d, int rank, const int64_t *dims, dnnl_data_type_t type, const int64_t *strides)
{
	dnnl_dims_t n, step;
	*d = (memory_desc){0};
	memcpy(n, dims, (size_t)rank * sizeof *n);
	if (strides)
		memcpy(step, strides, (size_t)rank * sizeof *step);
#if DNNL_VERSION_MAJOR >= 3
	return strides ? dnnl_memory_desc_create_with_strides(d, rank, n, type, step)
		       : dnnl_memory_desc_create_with_tag(d, rank, n, type, dnnl_format_tag_any);
#else
	return strides ? dnnl_memory_desc_init_by_strides(d, rank, n, type, step)
		       : dnnl_memory_desc_init_by_tag(d, rank, n, type, dnnl_format_tag_any);
#endif
}

void dnn_desc_free(memory_desc *d)
{
#if DNNL_VERSION_MAJOR >= 3
	dnnl_memory_desc_destroy(*d);
#else
	(void)d;
#endif
}

dnnl_status_t dnn_append_sum(dnnl_post_ops_t post)
{
#if DNNL_VERSION_MAJOR >= 3
	return dnnl_post_ops_append_sum(post, 1, 0, dnnl_data_type_undef);
#else
	return dnnl_post_ops_append_sum(post, 1);
#endif
}

dnnl_status_t dnn_matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const memory_desc *a, const memory_desc *b,
                              const memory_desc *bias, const memory_desc *c, dnnl_primitive_attr_t attr)
{
	*out = NULL;
#if DNNL_VERSION_MAJOR >= 3
	return dnnl_matmul_primitive_desc_create(out, engine, *a, *b, bias ? *bias : NULL, *c, attr);
#else
	dnnl_matmul_desc_t d;
	dnnl_status_t st = dnnl_matmul_desc_init(&d, a, b, bias, c);
	return st == dnnl_success ? dnnl_primitive_desc_create(out, &d, attr, engine, NULL) : st;
#endif
}

static void create_gemm(gemm_table *t, gemm_entry *e, const gemm_key *k)
{
	bool trans_a = k->flags & 1, trans_b = k->flags & 2, accumulate = k->flags & 4;
	const int64_t a_steps[] = {trans_a ? 1 : k->lda, trans_a ? k->lda : 1}, b_steps[] = {trans_b ? 1 : k->ldb, trans_b ? k->ldb : 1};
	memory_desc a, b, c;
	dnn_check(dnn_desc(&a, 2, (int64_t[]){k->m, k->k}, dnnl_bf16, a_steps), "memory descriptor");
	dnn_check(dnn_desc(&b, 2, (int64_t[]){k->k, k->n}, dnnl_bf16, b_steps), "memory descriptor");
	dnn_check(dnn_desc(&c, 2, (int64_t[]){k->m, k->n}, dnnl_f32, (int64_t[]){k->ldc, 1}), "memory descriptor");
	dnnl_primitive_attr_t attr;
	dnnl_post_ops_t post;
	dnn_check(dnnl_primitive_attr_create(&attr), "attributes");
	dnn_check(dnnl_post_ops_create(&post), "post-ops");
	if (accumulate)
		dnn_check(dnn_append_sum(post), "sum");
	dnn_check(dnnl_primitive_attr_set_post_ops(attr, post), "post-ops");
	dnnl_primitive_desc_t pd;
	dnn_check(dnn_matmul_desc(&pd, t->engine, &a, &b, NULL, &c, attr), "matmul");
	dnn_check(dnnl_primitive_create(&e->primitive, pd), "matmul");
	dnn_check(dnnl_memory_create(&e->a, DESC(a), t->engine, DNNL_MEMORY_NONE), "memory");
	dnn_check(dnnl_memory_create(&e->b, DESC(b), t->engine, DNNL_MEMORY_NONE), "memory");
	dnn_check(dnnl_memory_create(&e->c, DESC(c), t->engine, DNNL_MEMORY_NONE), "memory");
	dnnl_primitive_desc_destroy(pd);
	dnnl_post_ops_destroy(post);
	dnnl_primitive_attr_destroy(attr);
	dnn_desc_free(&a);
	dnn_desc_free(&b);
	dnn_desc_free(&c);
	e->key = *k;
}

static gemm_entry *find_gemm(gemm_table *t, const gemm_key *k)
{
	const int64_t *words = (const int64_t *)k;
	uint64_t hash = 0;
	for (size_t i = 0; i < sizeof *k / sizeof *words; i++)
		hash = (hash ^ (uint64_t)words[i]) * 0x9e3779b97f4a7c15u;
	if (t->used > TABLE_SLOTS / 2)
		table_clear(t);
	for (size_t i = hash >> 40;; i++) {
		gemm_entry *e = &t->slots[i % TABLE_SLOTS];
		if (!e->primitive) {
			create_gemm(t, e, k);
			t->used++;
			return e;
		}
		if (memcmp(&e->key, k, sizeof *k) == 0)
			return e;
	}
}

static float *widened(const uint16_t *v, int64_t rows, int64_t cols, int64_t ld)
{
	float *out = malloc((size_t)(rows * cols) * sizeof *out);
	dnn_check(out ? dnnl_success : dnnl_out_of_memory, "operands");
	for (int64_t r = 0; r < rows; r++)
		ops->widen(out + r * cols, v + r * ld, (size_t)cols);
	return out;
}

/* The same numbers the long way: bf16 operands are exact in f32. */
static void gemm_in_f32(const gemm_key *k, const uint16_t *a, const uint16_t *b, float beta, float *c)
{
	bool trans_a = k->flags & 1, trans_b = k->flags & 2;
	int64_t a_cols = trans_a ? k->m : k->k, b_cols = trans_b ? k->k : k->n;
	float *wide_a = widened(a, trans_a ? k->k : k->m, a_cols, k->lda);
	float *wide_b = widened(b, trans_b ? k->n : k->k, b_cols, k->ldb);
	dnn_sgemm(trans_a, trans_b, k->m, k->n, k->k, 1, wide_a, a_cols, wide_b, b_cols, beta, c, k->ldc);
	free(wide_a);
	free(wide_b);
}

/* oneDNN 3 has no bf16 matmul below AVX-512, and 3.7 computes nonsense for a vector whose elements are not side by side. */
static bool needs_f32(const gemm_key *k)
{
	bool a_is_strided = (k->flags & 1) && k->lda > 1, b_is_strided = !(k->flags & 2) && k->ldb > 1;
	return !dnn_has_bf16() || (k->m == 1 && a_is_strided) || (k->n == 1 && (b_is_strided || k->ldc > 1));
}

void dnn_gemm_bf16(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const uint16_t *a, int64_t lda, const uint16_t *b,
                   int64_t ldb, float beta, float *c, int64_t ldc)
{
	gemm_key key = {m, n, k, lda, ldb, ldc, (int64_t)trans_a | (int64_t)trans_b << 1 | (int64_t)(beta != 0) << 2};
	if (needs_f32(&key)) {
		gemm_in_f32(&key, a, b, beta, c);
		return;
	}
	gemm_table *t = this_table();
	gemm_entry *e = find_gemm(t, &key);
	dnn_check(dnnl_memory_set_data_handle(e->a, (void *)(uintptr_t)a), "data handle");
	dnn_check(dnnl_memory_set_data_handle(e->b, (void *)(uintptr_t)b), "data handle");
	dnn_check(dnnl_memory_set_data_handle(e->c, c), "data handle");
	dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, e->a}, {DNNL_ARG_WEIGHTS, e->b}, {DNNL_ARG_DST, e->c}};
	dnn_check(dnnl_primitive_execute(e->primitive, t->stream, 3, args), "matmul");
	dnn_check(dnnl_stream_wait(t->stream), "stream");
}

bool dnn_has_bf16(void) { return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16; }

const char *dnn_version(void)
{
	static char text[32]; /* every caller writes the same bytes */
	const dnnl_version_t *v = dnnl_version();
	snprintf(text, sizeof text, "%d.%d.%d", v->major, v->minor, v->patch);
	return text;
}

const char *dnn_isa(void)
{
	switch ((int)dnnl_get_effective_cpu_isa()) {
	case dnnl_cpu_isa_sse41: return "sse41";
	case dnnl_cpu_isa_avx: return "avx";
	case dnnl_cpu_isa_avx2: return "avx2";
	case dnnl_cpu_isa_avx2_vnni: return "avx2_vnni";
	case dnnl_cpu_isa_avx512_core: return "avx512_core";
	case dnnl_cpu_isa_avx512_core_vnni: return "avx512_core_vnni";
	case dnnl_cpu_isa_avx512_core_bf16: return "avx512_core_bf16";
	case dnnl_cpu_isa_avx512_core_amx: return "avx512_core_amx";
	default: return "other";
	}
}
