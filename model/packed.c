/* packed.c: see packed.h.
 *
 * A primitive is the same for all layers of one kind (widths, types, bias, residual) and one number of rows: what differs between
 * such layers, weights and bias, are arguments of its execution. */
#include "model/packed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/dnn_internal.h"

#define ROWS_HINT 64 /* the layout of weights is chosen for so many rows; it is the same for all but a few */

static const dnnl_data_type_t TYPES[] = {dnnl_f32, dnnl_bf16, dnnl_s8, dnnl_u8, dnnl_s32};

size_t element_size(element e)
{
	static const size_t sizes[] = {4, 2, 1, 1, 4};
	return sizes[e];
}

static bool is_int8(element e) { return e == ELEMENT_S8 || e == ELEMENT_U8; }
static element weights_of(element src) { return is_int8(src) ? ELEMENT_S8 : src; }

/* One engine for the process: it has no state. */
static dnnl_engine_t engine;
__attribute__((constructor)) static void open_engine(void) { dnn_check(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine"); }

struct packed_linear {
	int64_t in, out;
	element src, dst;
	bool accumulate, has_bias, has_layout;
	memory_desc desc; /* of the packed weights */
	dnnl_memory_t weights, bias;
	void *data;       /* weights */
	float *bias_data;
	size_t bytes;
	char kernel[64];
};

/* ---- kinds of primitives ---- */

/* Everything a primitive depends on. */
typedef struct kind {
	int64_t rows, in, out;       /* of a product: m, k, n */
	int64_t count;               /* 0: a layer */
	int64_t src, dst, flags;     /* flags: bias, accumulate */
	int64_t a[3], b[3], c[3];    /* of a product */
} kind;
enum { HAS_BIAS = 1, ACCUMULATES = 2 };

static dnnl_primitive_attr_t make_attr(bool accumulate)
{
	dnnl_primitive_attr_t attr;
	dnnl_post_ops_t post;
	dnn_check(dnnl_primitive_attr_create(&attr), "attributes");
	dnn_check(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "scratchpad mode");
	if (accumulate) {
		dnn_check(dnnl_post_ops_create(&post), "post-ops");
		dnn_append_sum(post);
		dnn_check(dnnl_primitive_attr_set_post_ops(attr, post), "post-ops");
		dnnl_post_ops_destroy(post);
	}
	return attr;
}

/* weights: NULL leaves their layout to oneDNN. */
static dnnl_primitive_desc_t make_linear(const kind *k, const memory_desc *weights, memory_desc *src, memory_desc *dst)
{
	memory_desc any, bias;
	const element src_type = (element)k->src;
	dnn_desc(src, 2, (int64_t[]){k->rows, k->in}, TYPES[k->src], (int64_t[]){k->in, 1});
	dnn_desc(dst, 2, (int64_t[]){k->rows, k->out}, TYPES[k->dst], (int64_t[]){k->out, 1});
	dnn_desc(&bias, 2, (int64_t[]){1, k->out}, dnnl_f32, (int64_t[]){k->out, 1});
	if (!weights) {
		dnnl_dims_t dims = {k->in, k->out};
#if DNNL_VERSION_MAJOR >= 3
		dnn_check(dnnl_memory_desc_create_with_tag(&any, 2, dims, TYPES[weights_of(src_type)], dnnl_format_tag_any), "memory descriptor");
#else
		dnn_check(dnnl_memory_desc_init_by_tag(&any, 2, dims, TYPES[weights_of(src_type)], dnnl_format_tag_any), "memory descriptor");
#endif
	}
	dnnl_primitive_attr_t attr = make_attr(k->flags & ACCUMULATES);
	dnnl_primitive_desc_t pd = dnn_matmul_desc(engine, src, weights ? weights : &any, k->flags & HAS_BIAS ? &bias : NULL, dst, attr);
	dnnl_primitive_attr_destroy(attr);
	dnn_desc_free(&bias);
	if (!weights)
		dnn_desc_free(&any);
	return pd;
}

static kind kind_of(const packed_linear *l, int64_t rows)
{
	return (kind){.rows = rows, .in = l->in, .out = l->out, .src = l->src, .dst = l->dst,
		      .flags = (l->has_bias ? HAS_BIAS : 0) | (l->accumulate ? ACCUMULATES : 0)};
}

/* ---- layers ---- */

static dnnl_memory_t memory_of(const memory_desc *d, void *data)
{
	dnnl_memory_t m;
	dnn_check(dnnl_memory_create(&m, DESC(*d), engine, data), "memory");
	return m;
}

/* The weights from [out][in] into the layout of l->desc. */
static void pack(packed_linear *l, const packed_spec *s)
{
	const element given = is_int8(s->src) ? ELEMENT_S8 : ELEMENT_F32;
	const void *from = is_int8(s->src) ? (const void *)s->quantized : (const void *)s->weight;
	memory_desc plain;
	dnnl_primitive_desc_t pd;
	dnnl_primitive_t reorder;
	dnnl_stream_t stream;
	dnn_desc(&plain, 2, (int64_t[]){s->in, s->out}, TYPES[given], (int64_t[]){1, s->in});
	dnnl_memory_t source = memory_of(&plain, (void *)(uintptr_t)from);
	dnn_check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "stream");
	dnn_check(dnnl_reorder_primitive_desc_create(&pd, DESC(plain), engine, DESC(l->desc), engine, NULL), "reorder");
	dnn_check(dnnl_primitive_create(&reorder, pd), "reorder");
	dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, l->weights}};
	dnn_check(dnnl_primitive_execute(reorder, stream, 2, args), "reorder");
	dnn_check(dnnl_stream_wait(stream), "stream");
	dnnl_primitive_destroy(reorder);
	dnnl_primitive_desc_destroy(pd);
	dnnl_memory_destroy(source);
	dnnl_stream_destroy(stream);
	dnn_desc_free(&plain);
}

static void copy_desc(memory_desc *to, dnnl_primitive_desc_t pd)
{
#if DNNL_VERSION_MAJOR >= 3
	dnn_check(dnnl_memory_desc_clone(to, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0)), "memory descriptor");
#else
	*to = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
#endif
}

static bool is_sound(const packed_spec *s)
{
	if (s->in < 1 || s->out < 1)
		return false;
	if (is_int8(s->src))
		return s->quantized && !s->bias && s->dst == ELEMENT_S32 && !s->accumulate;
	return s->weight && (s->dst == ELEMENT_F32 || (s->dst == ELEMENT_BF16 && s->src == ELEMENT_BF16)) &&
	       (!s->accumulate || s->dst == ELEMENT_F32);
}

/* Sums of two products in 16 bits overflow; VNNI sums in 32. */
static bool has_vnni(void)
{
	return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_vnni) == dnnl_cpu_isa_avx512_core_vnni;
}

/* Chooses the weights' layout. */
static wn_code choose_layout(packed_linear *l, wn_error *err)
{
	memory_desc src, dst;
	const char *kernel = "";
	const kind k = kind_of(l, ROWS_HINT);
	dnnl_primitive_desc_t pd = is_int8(l->src) && !has_vnni() ? NULL : make_linear(&k, NULL, &src, &dst);
	if (!pd)
		return wn_fail(err, WN_UNSUPPORTED, "no exact product of these types on this CPU");
	copy_desc(&l->desc, pd);
	dnn_check(dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&kernel), "kernel's name");
	snprintf(l->kernel, sizeof l->kernel, "%s", kernel);
	dnnl_primitive_desc_destroy(pd);
	dnn_desc_free(&src);
	dnn_desc_free(&dst);
	l->has_layout = true;
	return WN_OK;
}

static wn_code take_weights(packed_linear *l, const packed_spec *s, wn_error *err)
{
	l->bytes = dnnl_memory_desc_get_size(DESC(l->desc));
	l->data = aligned_alloc(64, (l->bytes + 63) / 64 * 64);
	if (!l->data)
		return wn_fail(err, WN_NOMEM, "no memory for %zu bytes of weights", l->bytes);
	l->weights = memory_of(&l->desc, l->data);
	pack(l, s);
	return WN_OK;
}

static wn_code take_bias(packed_linear *l, const packed_spec *s, wn_error *err)
{
	memory_desc row;
	if (!s->bias)
		return WN_OK;
	l->bias_data = malloc((size_t)s->out * sizeof *l->bias_data);
	if (!l->bias_data)
		return wn_fail(err, WN_NOMEM, "no memory for %lld outputs", (long long)s->out);
	memcpy(l->bias_data, s->bias, (size_t)s->out * sizeof *l->bias_data);
	dnn_desc(&row, 2, (int64_t[]){1, s->out}, dnnl_f32, (int64_t[]){s->out, 1});
	l->bias = memory_of(&row, l->bias_data);
	dnn_desc_free(&row);
	return WN_OK;
}

wn_code packed_open(packed_linear **out, const packed_spec *s, wn_error *err)
{
	*out = NULL;
	if (!is_sound(s))
		return wn_fail(err, WN_INTERNAL, "packed layer: %lld x %lld does not fit its types", (long long)s->out, (long long)s->in);
	packed_linear *l = calloc(1, sizeof *l);
	if (!l)
		return wn_fail(err, WN_NOMEM, "no memory for a layer");
	*l = (packed_linear){.in = s->in, .out = s->out, .src = s->src, .dst = s->dst, .accumulate = s->accumulate, .has_bias = s->bias};
	wn_code rc = choose_layout(l, err);
	if (!rc)
		rc = take_weights(l, s, err);
	if (!rc)
		rc = take_bias(l, s, err);
	if (rc)
		packed_close(&l);
	*out = l;
	return rc;
}

void packed_close(packed_linear **l)
{
	if (!*l)
		return;
	if ((*l)->weights)
		dnnl_memory_destroy((*l)->weights);
	if ((*l)->bias)
		dnnl_memory_destroy((*l)->bias);
	if ((*l)->has_layout)
		dnn_desc_free(&(*l)->desc);
	free((*l)->data);
	free((*l)->bias_data);
	free(*l);
	*l = NULL;
}

size_t packed_bytes(const packed_linear *l) { return l->bytes; }
const char *packed_kernel(const packed_linear *l) { return l->kernel; }

/* ---- running ---- */

typedef struct entry {
	kind key;
	dnnl_primitive_t primitive; /* NULL: the slot is free */
	dnnl_memory_t a, b, c;      /* b: of products */
} entry;

struct packed_runner {
	dnnl_stream_t stream;
	entry *slots;
	size_t capacity, used;
	dnnl_memory_t scratch;  /* as large as the largest primitive's needs */
	void *scratch_data;
	size_t scratch_size;
};

wn_code packed_runner_open(packed_runner **out, wn_error *err)
{
	packed_runner *r = *out = calloc(1, sizeof *r);
	if (!r || !(r->slots = calloc(r->capacity = 256, sizeof *r->slots))) {
		free(r);
		*out = NULL;
		return wn_fail(err, WN_NOMEM, "no memory for a runner");
	}
	dnn_check(dnnl_stream_create(&r->stream, engine, dnnl_stream_default_flags), "stream");
	return WN_OK;
}

void packed_runner_close(packed_runner **r)
{
	if (!*r)
		return;
	for (size_t i = 0; i < (*r)->capacity; i++) {
		entry *e = &(*r)->slots[i];
		if (!e->primitive)
			continue;
		dnnl_primitive_destroy(e->primitive);
		dnnl_memory_destroy(e->a);
		dnnl_memory_destroy(e->c);
		if (e->b)
			dnnl_memory_destroy(e->b);
	}
	if ((*r)->scratch)
		dnnl_memory_destroy((*r)->scratch);
	free((*r)->scratch_data);
	free((*r)->slots);
	dnnl_stream_destroy((*r)->stream);
	free(*r);
	*r = NULL;
}

int packed_runner_created(const packed_runner *r) { return (int)r->used; }

static entry *slot_of(entry *slots, size_t capacity, const kind *k)
{
	const int64_t *words = (const int64_t *)k;
	uint64_t hash = 0;
	for (size_t i = 0; i < sizeof *k / sizeof *words; i++)
		hash = (hash ^ (uint64_t)words[i]) * 0x9e3779b97f4a7c15u;
	for (size_t i = hash >> 32;; i++) {
		entry *e = &slots[i % capacity];
		if (!e->primitive || memcmp(&e->key, k, sizeof *k) == 0)
			return e;
	}
}

static void grow(packed_runner *r)
{
	entry *slots = calloc(r->capacity * 2, sizeof *slots);
	dnn_check(slots ? dnnl_success : dnnl_out_of_memory, "primitives");
	for (size_t i = 0; i < r->capacity; i++)
		if (r->slots[i].primitive)
			*slot_of(slots, r->capacity * 2, &r->slots[i].key) = r->slots[i];
	free(r->slots);
	r->slots = slots;
	r->capacity *= 2;
}

static void keep_scratch(packed_runner *r, dnnl_primitive_desc_t pd)
{
	const size_t need = dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
	if (need <= r->scratch_size && r->scratch)
		return;
	memory_desc d;
	const int64_t size = (int64_t)(need > r->scratch_size ? need : 64);
	if (r->scratch)
		dnnl_memory_destroy(r->scratch);
	free(r->scratch_data);
	r->scratch_data = aligned_alloc(64, ((size_t)size + 63) / 64 * 64);
	dnn_check(r->scratch_data ? dnnl_success : dnnl_out_of_memory, "scratchpad");
	r->scratch_size = (size_t)size;
	dnn_desc(&d, 1, &size, dnnl_u8, (int64_t[]){1});
	r->scratch = memory_of(&d, r->scratch_data);
	dnn_desc_free(&d);
}

/* The primitive of pd, which it takes. */
static void add_entry(packed_runner *r, entry *e, const kind *k, dnnl_primitive_desc_t pd)
{
	dnn_check(pd ? dnnl_success : dnnl_unimplemented, "matmul");
	dnn_check(dnnl_primitive_create(&e->primitive, pd), "matmul");
	keep_scratch(r, pd);
	dnnl_primitive_desc_destroy(pd);
	e->key = *k;
	r->used++;
}

static entry *find_entry(packed_runner *r, const kind *k)
{
	if (r->used * 2 > r->capacity)
		grow(r);
	return slot_of(r->slots, r->capacity, k);
}

static void execute(packed_runner *r, entry *e, int count, const dnnl_exec_arg_t *args)
{
	dnn_check(dnnl_primitive_execute(e->primitive, r->stream, count, args), "matmul");
	dnn_check(dnnl_stream_wait(r->stream), "stream");
}

static void point(dnnl_memory_t m, const void *data) { dnn_check(dnnl_memory_set_data_handle(m, (void *)(uintptr_t)data), "data handle"); }

void packed_run(packed_runner *r, const packed_linear *l, int64_t rows, const void *src, void *dst)
{
	const kind k = kind_of(l, rows);
	entry *e = find_entry(r, &k);
	if (!e->primitive) {
		memory_desc a, c;
		add_entry(r, e, &k, make_linear(&k, &l->desc, &a, &c));
		e->a = memory_of(&a, NULL);
		e->c = memory_of(&c, NULL);
		dnn_desc_free(&a);
		dnn_desc_free(&c);
	}
	point(e->a, src);
	point(e->c, dst);
	dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, e->a}, {DNNL_ARG_WEIGHTS, l->weights}, {DNNL_ARG_DST, e->c},
				  {DNNL_ARG_SCRATCHPAD, r->scratch}, {DNNL_ARG_BIAS, l->bias}};
	execute(r, e, l->has_bias ? 5 : 4, args);
}

void packed_multiply(packed_runner *r, const packed_product *p, const void *a, const void *b, void *c)
{
	kind k = {.rows = p->m, .in = p->k, .out = p->n, .count = p->count, .src = p->src, .dst = p->dst};
	memcpy(k.a, p->a, sizeof k.a);
	memcpy(k.b, p->b, sizeof k.b);
	memcpy(k.c, p->c, sizeof k.c);
	entry *e = find_entry(r, &k);
	if (!e->primitive) {
		memory_desc da, db, dc;
		dnn_desc(&da, 3, (int64_t[]){p->count, p->m, p->k}, TYPES[p->src], p->a);
		dnn_desc(&db, 3, (int64_t[]){p->count, p->k, p->n}, TYPES[p->src], p->b);
		dnn_desc(&dc, 3, (int64_t[]){p->count, p->m, p->n}, TYPES[p->dst], p->c);
		dnnl_primitive_attr_t attr = make_attr(false);
		add_entry(r, e, &k, dnn_matmul_desc(engine, &da, &db, NULL, &dc, attr));
		dnnl_primitive_attr_destroy(attr);
		e->a = memory_of(&da, NULL);
		e->b = memory_of(&db, NULL);
		e->c = memory_of(&dc, NULL);
		dnn_desc_free(&da);
		dnn_desc_free(&db);
		dnn_desc_free(&dc);
	}
	point(e->a, a);
	point(e->b, b);
	point(e->c, c);
	execute(r, e, 4, (dnnl_exec_arg_t[]){{DNNL_ARG_SRC, e->a}, {DNNL_ARG_WEIGHTS, e->b}, {DNNL_ARG_DST, e->c},
					     {DNNL_ARG_SCRATCHPAD, r->scratch}});
}
