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

static dnnl_status_t make_attr(dnnl_primitive_attr_t *attr, bool accumulate)
{
	dnnl_post_ops_t post = NULL;
	*attr = NULL;
	dnnl_status_t st = dnnl_primitive_attr_create(attr);
	if (!st)
		st = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
	if (!st && accumulate && !(st = dnnl_post_ops_create(&post)) && !(st = dnn_append_sum(post)))
		st = dnnl_primitive_attr_set_post_ops(*attr, post);
	if (post)
		dnnl_post_ops_destroy(post);
	return st;
}

/* weights: NULL leaves their layout to oneDNN. *src and *dst are the caller's to free, also after a failure. */
static dnnl_status_t make_linear(dnnl_primitive_desc_t *pd, const kind *k, const memory_desc *weights, memory_desc *src, memory_desc *dst)
{
	memory_desc any = {0}, bias = {0};
	dnnl_primitive_attr_t attr = NULL;
	*src = *dst = (memory_desc){0};
	dnnl_status_t st = dnn_desc(src, 2, (int64_t[]){k->rows, k->in}, TYPES[k->src], (int64_t[]){k->in, 1});
	if (!st)
		st = dnn_desc(dst, 2, (int64_t[]){k->rows, k->out}, TYPES[k->dst], (int64_t[]){k->out, 1});
	if (!st)
		st = dnn_desc(&bias, 2, (int64_t[]){1, k->out}, dnnl_f32, (int64_t[]){k->out, 1});
	if (!st && !weights)
		st = dnn_desc(&any, 2, (int64_t[]){k->in, k->out}, TYPES[weights_of((element)k->src)], NULL);
	if (!st)
		st = make_attr(&attr, k->flags & ACCUMULATES);
	if (!st)
		st = dnn_matmul_desc(pd, engine, src, weights ? weights : &any, k->flags & HAS_BIAS ? &bias : NULL, dst, attr);
	if (attr)
		dnnl_primitive_attr_destroy(attr);
	dnn_desc_free(&bias);
	dnn_desc_free(&any);
	return st;
}

static kind kind_of(const packed_linear *l, int64_t rows)
{
	return (kind){.rows = rows, .in = l->in, .out = l->out, .src = l->src, .dst = l->dst,
		      .flags = (l->has_bias ? HAS_BIAS : 0) | (l->accumulate ? ACCUMULATES : 0)};
}

/* ---- layers ---- */

static wn_code failed(dnnl_status_t st, const char *what, wn_error *err)
{
	if (st == dnnl_out_of_memory)
		return wn_fail(err, WN_NOMEM, "no memory for %s", what);
	return wn_fail(err, WN_INTERNAL, "oneDNN fails with status %d at %s", (int)st, what);
}

static dnnl_status_t memory_of(dnnl_memory_t *m, const memory_desc *d, void *data) { return dnnl_memory_create(m, DESC(*d), engine, data); }

/* The weights from [out][in] into the layout of l->desc. */
static dnnl_status_t pack(packed_linear *l, const packed_spec *s)
{
	const element given = is_int8(s->src) ? ELEMENT_S8 : ELEMENT_F32;
	const void *from = is_int8(s->src) ? (const void *)s->quantized : (const void *)s->weight;
	memory_desc plain;
	dnnl_memory_t source = NULL;
	dnnl_stream_t stream = NULL;
	dnnl_primitive_desc_t pd = NULL;
	dnnl_primitive_t reorder = NULL;
	dnnl_status_t st = dnn_desc(&plain, 2, (int64_t[]){s->in, s->out}, TYPES[given], (int64_t[]){1, s->in});
	if (!st)
		st = memory_of(&source, &plain, (void *)(uintptr_t)from);
	if (!st)
		st = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
	if (!st)
		st = dnnl_reorder_primitive_desc_create(&pd, DESC(plain), engine, DESC(l->desc), engine, NULL);
	if (!st)
		st = dnnl_primitive_create(&reorder, pd);
	if (!st)
		st = dnnl_primitive_execute(reorder, stream, 2, (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, l->weights}});
	if (!st)
		st = dnnl_stream_wait(stream);
	if (reorder)
		dnnl_primitive_destroy(reorder);
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	if (stream)
		dnnl_stream_destroy(stream);
	if (source)
		dnnl_memory_destroy(source);
	dnn_desc_free(&plain);
	return st;
}

static dnnl_status_t copy_desc(memory_desc *to, dnnl_primitive_desc_t pd)
{
#if DNNL_VERSION_MAJOR >= 3
	return dnnl_memory_desc_clone(to, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0));
#else
	*to = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
	return dnnl_success;
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
	memory_desc src = {0}, dst = {0};
	const char *kernel = "";
	const kind k = kind_of(l, ROWS_HINT);
	dnnl_primitive_desc_t pd = NULL;
	dnnl_status_t st = is_int8(l->src) && !has_vnni() ? dnnl_unimplemented : make_linear(&pd, &k, NULL, &src, &dst);
	if (!st)
		st = copy_desc(&l->desc, pd);
	l->has_layout = !st;
	if (!st)
		st = dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&kernel);
	if (!st)
		snprintf(l->kernel, sizeof l->kernel, "%s", kernel);
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	dnn_desc_free(&src);
	dnn_desc_free(&dst);
	if (st == dnnl_unimplemented)
		return wn_fail(err, WN_UNSUPPORTED, "no exact product of these types on this CPU");
	return st ? failed(st, "a layer", err) : WN_OK;
}

static wn_code take_weights(packed_linear *l, const packed_spec *s, wn_error *err)
{
	l->bytes = dnnl_memory_desc_get_size(DESC(l->desc));
	l->data = aligned_alloc(64, (l->bytes + 63) / 64 * 64);
	if (!l->data)
		return wn_fail(err, WN_NOMEM, "no memory for %zu bytes of weights", l->bytes);
	dnnl_status_t st = memory_of(&l->weights, &l->desc, l->data);
	if (!st)
		st = pack(l, s);
	return st ? failed(st, "a layer's weights", err) : WN_OK;
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
	dnnl_status_t st = dnn_desc(&row, 2, (int64_t[]){1, s->out}, dnnl_f32, (int64_t[]){s->out, 1});
	if (!st)
		st = memory_of(&l->bias, &row, l->bias_data);
	dnn_desc_free(&row);
	return st ? failed(st, "a layer's bias", err) : WN_OK;
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
	dnnl_status_t status; /* the first failure since packed_runner_check */
};

static void entry_free(entry *e)
{
	if (e->primitive)
		dnnl_primitive_destroy(e->primitive);
	const dnnl_memory_t operands[] = {e->a, e->b, e->c};
	for (int i = 0; i < 3; i++)
		if (operands[i])
			dnnl_memory_destroy(operands[i]);
}

wn_code packed_runner_open(packed_runner **out, wn_error *err)
{
	packed_runner *r = *out = calloc(1, sizeof *r);
	if (!r || !(r->slots = calloc(r->capacity = 256, sizeof *r->slots)) ||
	    dnnl_stream_create(&r->stream, engine, dnnl_stream_default_flags)) {
		packed_runner_close(out);
		return wn_fail(err, WN_NOMEM, "no memory for a runner");
	}
	return WN_OK;
}

void packed_runner_close(packed_runner **r)
{
	if (!*r)
		return;
	for (size_t i = 0; i < (*r)->capacity && (*r)->slots; i++)
		entry_free(&(*r)->slots[i]);
	if ((*r)->scratch)
		dnnl_memory_destroy((*r)->scratch);
	free((*r)->scratch_data);
	free((*r)->slots);
	if ((*r)->stream)
		dnnl_stream_destroy((*r)->stream);
	free(*r);
	*r = NULL;
}

int packed_runner_created(const packed_runner *r) { return (int)r->used; }

wn_code packed_runner_check(packed_runner *r, wn_error *err)
{
	const dnnl_status_t st = r->status;
	r->status = dnnl_success;
	return st ? failed(st, "a product", err) : WN_OK;
}

/* Whether st is a success; the first that is not is kept for packed_runner_check. */
static bool succeeds(packed_runner *r, dnnl_status_t st)
{
	if (st && !r->status)
		r->status = st;
	return !st;
}

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

static dnnl_status_t grow(packed_runner *r)
{
	entry *slots = calloc(r->capacity * 2, sizeof *slots);
	if (!slots)
		return dnnl_out_of_memory;
	for (size_t i = 0; i < r->capacity; i++)
		if (r->slots[i].primitive)
			*slot_of(slots, r->capacity * 2, &r->slots[i].key) = r->slots[i];
	free(r->slots);
	r->slots = slots;
	r->capacity *= 2;
	return dnnl_success;
}

static dnnl_status_t keep_scratch(packed_runner *r, dnnl_primitive_desc_t pd)
{
	const size_t need = dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
	if (need <= r->scratch_size && r->scratch)
		return dnnl_success;
	memory_desc d = {0};
	dnnl_memory_t scratch = NULL;
	const int64_t size = (int64_t)(need > r->scratch_size ? need : 64);
	void *data = aligned_alloc(64, ((size_t)size + 63) / 64 * 64);
	dnnl_status_t st = data ? dnn_desc(&d, 1, &size, dnnl_u8, (int64_t[]){1}) : dnnl_out_of_memory;
	if (!st)
		st = memory_of(&scratch, &d, data);
	dnn_desc_free(&d);
	if (st) {
		free(data);
		return st;
	}
	if (r->scratch)
		dnnl_memory_destroy(r->scratch);
	free(r->scratch_data);
	r->scratch = scratch;
	r->scratch_data = data;
	r->scratch_size = (size_t)size;
	return dnnl_success;
}

/* The primitive of pd, with memories for its operands (b: NULL for a layer, whose weights stand elsewhere). A failure leaves the slot
 * free. */
static dnnl_status_t fill_entry(packed_runner *r, entry *e, const kind *k, dnnl_primitive_desc_t pd, const memory_desc *a,
				const memory_desc *b, const memory_desc *c)
{
	entry made = {.key = *k};
	dnnl_status_t st = keep_scratch(r, pd);
	if (!st)
		st = memory_of(&made.a, a, NULL);
	if (!st && b)
		st = memory_of(&made.b, b, NULL);
	if (!st)
		st = memory_of(&made.c, c, NULL);
	if (!st)
		st = dnnl_primitive_create(&made.primitive, pd);
	if (st) {
		entry_free(&made);
		return st;
	}
	*e = made;
	r->used++;
	return dnnl_success;
}

static dnnl_status_t add_linear(packed_runner *r, entry *e, const kind *k, const packed_linear *l)
{
	memory_desc a, c;
	dnnl_primitive_desc_t pd = NULL;
	dnnl_status_t st = make_linear(&pd, k, &l->desc, &a, &c);
	if (!st)
		st = fill_entry(r, e, k, pd, &a, NULL, &c);
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	dnn_desc_free(&a);
	dnn_desc_free(&c);
	return st;
}

static dnnl_status_t add_product(packed_runner *r, entry *e, const kind *k, const packed_product *p)
{
	memory_desc a = {0}, b = {0}, c = {0};
	dnnl_primitive_attr_t attr = NULL;
	dnnl_primitive_desc_t pd = NULL;
	dnnl_status_t st = dnn_desc(&a, 3, (int64_t[]){p->count, p->m, p->k}, TYPES[p->src], p->a);
	if (!st)
		st = dnn_desc(&b, 3, (int64_t[]){p->count, p->k, p->n}, TYPES[p->src], p->b);
	if (!st)
		st = dnn_desc(&c, 3, (int64_t[]){p->count, p->m, p->n}, TYPES[p->dst], p->c);
	if (!st)
		st = make_attr(&attr, false);
	if (!st)
		st = dnn_matmul_desc(&pd, engine, &a, &b, NULL, &c, attr);
	if (!st)
		st = fill_entry(r, e, k, pd, &a, &b, &c);
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	if (attr)
		dnnl_primitive_attr_destroy(attr);
	dnn_desc_free(&a);
	dnn_desc_free(&b);
	dnn_desc_free(&c);
	return st;
}

/* The primitive's slot, free when it is to be made; NULL: no memory for one more. */
static entry *find_entry(packed_runner *r, const kind *k)
{
	entry *e = slot_of(r->slots, r->capacity, k);
	if (e->primitive || r->used * 2 <= r->capacity)
		return e;
	return succeeds(r, grow(r)) ? slot_of(r->slots, r->capacity, k) : NULL;
}

static void execute(packed_runner *r, entry *e, int count, const dnnl_exec_arg_t *args)
{
	if (succeeds(r, dnnl_primitive_execute(e->primitive, r->stream, count, args)))
		succeeds(r, dnnl_stream_wait(r->stream));
}

static void point(dnnl_memory_t m, const void *data) { dnn_check(dnnl_memory_set_data_handle(m, (void *)(uintptr_t)data), "data handle"); }

void packed_run(packed_runner *r, const packed_linear *l, int64_t rows, const void *src, void *dst)
{
	const kind k = kind_of(l, rows);
	entry *e = find_entry(r, &k);
	if (!e || (!e->primitive && !succeeds(r, add_linear(r, e, &k, l))))
		return;
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
	if (!e || (!e->primitive && !succeeds(r, add_product(r, e, &k, p))))
		return;
	point(e->a, a);
	point(e->b, b);
	point(e->c, c);
	execute(r, e, 4, (dnnl_exec_arg_t[]){{DNNL_ARG_SRC, e->a}, {DNNL_ARG_WEIGHTS, e->b}, {DNNL_ARG_DST, e->c},
					     {DNNL_ARG_SCRATCHPAD, r->scratch}});
}
