/* dnn_internal.h: what dnn.c and packed.c share: the two files that include dnnl.h, for oneDNN 2.6 (Debian 12) and 3.x (Debian
 * 13). */
#ifndef WINNOW_MODEL_DNN_INTERNAL_H
#define WINNOW_MODEL_DNN_INTERNAL_H

#include <dnnl.h>

/* Where only a bug or exhausted memory can fail and nobody could be told (training): ends the program with one line. Serving
 * (packed.c) passes the status on instead. */
void dnn_check(dnnl_status_t st, const char *what);

/* Memory descriptors are values in oneDNN 2 and handles in 3. */
typedef dnnl_memory_desc_t memory_desc;
#if DNNL_VERSION_MAJOR >= 3
#define DESC(d) (d)
#else
#define DESC(d) (&(d))
#endif

/* strides: NULL leaves the layout to oneDNN. A failure leaves *d empty; freeing an empty one ({0}) is fine. */
dnnl_status_t dnn_desc(memory_desc *d, int rank, const int64_t *dims, dnnl_data_type_t type, const int64_t *strides);
void dnn_desc_free(memory_desc *d);

/* c += instead of c = */
dnnl_status_t dnn_append_sum(dnnl_post_ops_t post);

/* A matmul of a x b (+ bias) -> c; bias may be NULL. dnnl_unimplemented when oneDNN has none for it. */
dnnl_status_t dnn_matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const memory_desc *a, const memory_desc *b,
                              const memory_desc *bias, const memory_desc *c, dnnl_primitive_attr_t attr);

#endif
