/* dnn.c: see dnn.h. */
#include "model/dnn.h"

#include <stdio.h>
#include <stdlib.h>

#include <dnnl.h>

void dnn_sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
               const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
	dnnl_status_t st = dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
	if (st != dnnl_success) {
		fprintf(stderr, "winnow: oneDNN sgemm %lldx%lldx%lld failed with status %d\n", (long long)m, (long long)n,
		        (long long)k, (int)st);
		abort();
	}
}

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
	case dnnl_cpu_isa_avx512_core: return "avx512_core";
	case dnnl_cpu_isa_avx512_core_vnni: return "avx512_core_vnni";
	case dnnl_cpu_isa_avx512_core_bf16: return "avx512_core_bf16";
	default: return "other";
	}
}
