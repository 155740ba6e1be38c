/* compare.c: see compare.h. */
#include "server/compare.h"

#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "server/background.h"
#include "server/decoder.h"
#include "server/log.h"
#include "server/worker.h"

struct comparer {
	const server_config *config;
	decoder *decoder; /* the worker's: these are outside bytes here as well */
	queue *in;
	worker_pool *worker;
	atomic_int places; /* free ones: 1 or 0 */
};

typedef struct job {
	bytes body, decoded, text, assist; /* moved out of the request; image points into one of the first two */
	const unsigned char *image;
	size_t image_len;
	served_model *candidate, *primary;
	trial *trial;
} job;

static void job_free(job *j)
{
	bytes_free(&j->body);
	bytes_free(&j->decoded);
	bytes_free(&j->text);
	bytes_free(&j->assist);
	registry_release(&j->candidate);
	registry_release(&j->primary);
	trial_release(&j->trial);
	free(j);
}

/* One version's opinion. */
typedef struct opinion {
	verdict verdict;
	int64_t took_ns;
	bool began; /* it had its memory and its image: what failed from there on is its own doing */
} opinion;

/* From the bytes on: the versions may differ in image size and prompt. */
static wn_code ask(comparer *c, const job *j, served_model *m, opinion *out, wn_error *err)
{
	const checkpoint *ckpt = classifier_checkpoint(m->classifier);
	const image_processor *ip = &ckpt->image_processor;
	float probs[MAX_LABELS];
	image img = {0};
	int len = 0;
	omp_set_num_threads(classifier_session_threads(m->sessions[0])); /* as its answers have them, and nowhere pinned */
	wn_code code = m->aside ? WN_OK : classifier_session_open(&m->aside, m->classifier, 1, err);
	float *pixels = malloc(3 * sizeof *pixels * (size_t)ip->size * (size_t)ip->size);
	int32_t *ids = malloc(sizeof *ids * (size_t)ckpt->manifest.max_text_tokens);
	if (!pixels || !ids)
		code = wn_fail(err, WN_NOMEM, "out of memory");
	if (code == WN_OK)
		code = decoder_decode(c->decoder, &img, j->image, j->image_len, ip->size, ip->size, INT64_MAX, err);
	const int64_t start = monotonic_ns();
	if (code == WN_OK)
		code = image_preprocess(pixels, ip, &img, err);
	out->began = code == WN_OK;
	if (code == WN_OK)
		code = classifier_encode_prompt(m->classifier, (const char *)j->text.data,
						j->assist.len ? (const char *)j->assist.data : "", ids, &len, err);
	if (code == WN_OK) {
		const classifier_input in = {pixels, ids, len};
		code = classifier_run(m->aside, &in, 1, probs, err);
	}
	out->took_ns = monotonic_ns() - start;
	if (code == WN_OK)
		out->verdict = classifier_decide(m->classifier, probs);
	decoder_release(c->decoder, &img);
	free(pixels);
	free(ids);
	return code;
}

static bool agree(const job *j, const verdict *a, const verdict *b)
{
	/* Versions may list their labels in another order: names count. */
	return a->suggestion == b->suggestion && strcmp(classifier_label(j->candidate->classifier, a->label)->name,
							classifier_label(j->primary->classifier, b->label)->name) == 0;
}

static void run(void *cls, int worker, void **items, size_t count)
{
	comparer *c = cls;
	job *j = items[0];
	opinion primary, candidate;
	wn_code code = WN_OK;
	wn_error err = {0};
	/* The first run of a session makes primitives and touches pages: it is not timed. */
	const bool warm = j->candidate->aside && j->primary->aside;
	for (int i = 0; i < 2 && code == WN_OK; i += 1 + warm) {
		candidate.began = false;
		code = ask(c, j, j->primary, &primary, &err);
		if (code == WN_OK)
			code = ask(c, j, j->candidate, &candidate, &err);
	}
	if (code == WN_OK) {
		trial_compared(j->trial, agree(j, &candidate.verdict, &primary.verdict), candidate.took_ns, primary.took_ns);
	} else {
		/* This thread and its decoder get what time and memory the others leave: that they got none says nothing about
		 * the candidate, and must not end its trial. */
		log_warning("model %s version %s on trial: %s%s", j->candidate->name, j->candidate->version,
			    candidate.began ? "" : "not compared: ", err.message);
		candidate.began ? trial_failed(j->trial) : trial_dropped(j->trial);
	}
	job_free(j);
	atomic_store(&c->places, 1);
}

static wn_code start(void *cls, int worker, wn_error *err)
{
	background_thread();
	comparer *c = cls;
	const decoder_options opt = decoder_options_of(c->config);
	return decoder_open(&c->decoder, &opt, err);
}

wn_code compare_open(comparer **out, const server_config *config, wn_error *err)
{
	comparer *c = *out = calloc(1, sizeof *c);
	if (!c)
		return wn_fail(err, WN_NOMEM, "out of memory for the comparer");
	c->config = config;
	atomic_init(&c->places, 1);
	wn_code code = queue_open(&c->in, 1, err);
	worker_options opt = {
	    .name = "compare", .in = c->in, .threads = 1, .max_items = 1, .cls = c, .start = start, .run = run};
	if (code == WN_OK)
		code = worker_pool_open(&c->worker, &opt, err);
	if (code != WN_OK)
		compare_close(out);
	return code;
}

void compare_close(comparer **cp)
{
	comparer *c = *cp;
	if (!c)
		return;
	*cp = NULL;
	worker_pool_close(&c->worker);
	decoder_close(&c->decoder);
	queue_close(&c->in);
	free(c);
}

static bytes move(bytes *b)
{
	bytes taken = *b;
	*b = (bytes){.budget = b->budget};
	return taken;
}

void compare_submit(comparer *c, request *r)
{
	int one = 1;
	job *j = atomic_compare_exchange_strong(&c->places, &one, 0) ? calloc(1, sizeof *j) : NULL;
	if (!j) {
		trial_dropped(r->trial);
		if (one) /* the place was taken, for nothing */
			atomic_store(&c->places, 1);
		return;
	}
	const bool canary = trial_get_mode(r->trial) == TRIAL_CANARY;
	*j = (job){.body = move(&r->body),
		   .decoded = move(&r->decoded),
		   .text = move(&r->text),
		   .assist = move(&r->assist),
		   .image = r->image,
		   .image_len = r->image_len,
		   .candidate = canary ? r->model : r->other,
		   .primary = canary ? r->other : r->model,
		   .trial = r->trial};
	r->model = r->other = NULL;
	r->trial = NULL;
	r->image = NULL;
	if (!queue_push(c->in, j))
		job_free(j); /* closing */
}
