/* compress_cost.c: see compress_cost.h. */
#include "prune/compress/compress_cost.h"

int compress_request_threads(const compress_config *c) { return c->target_threads ? c->target_threads : c->threads; }

static wn_code check_stop(const compress_cost *c, wn_error *err)
{
	return c->stop && *c->stop ? wn_fail(err, WN_CANCELLED, "stopped while shapes were timed") : WN_OK;
}

static wn_code predict(void *ctx, const blip2_config *shape, double *ms, wn_error *err)
{
	const compress_cost *c = ctx;
	wn_code rc = check_stop(c, err);
	return rc ? rc : cost_latency(c->machine, shape, ms, err);
}

static wn_code measure(void *ctx, const blip2_config *shape, int runs, double *ms, wn_error *err)
{
	const compress_cost *c = ctx;
	wn_code rc = check_stop(c, err);
	return rc ? rc : cost_measure(c->machine, shape, runs, ms, err);
}

wn_code compress_cost_open(compress_cost *out, const workspace *w, wn_error *err)
{
	const compress_config *c = w->config;
	const cost_request request = {.text_len = c->request_tokens, .logit_rows = 1, .threads = compress_request_threads(c),
				      .precision = (precision)c->target_precision};
	const cost_functions functions = {.latency = predict, .measure = measure, .ctx = out};
	*out = (compress_cost){.stop = w->stop};
	wn_code rc = cost_open(&out->machine, &request, err);
	if (!rc)
		rc = cost_open_custom(&out->model, &request, &functions, err);
	if (rc)
		compress_cost_close(out);
	return rc;
}

void compress_cost_close(compress_cost *c)
{
	cost_close(&c->model);
	cost_close(&c->machine);
	*c = (compress_cost){0};
}
