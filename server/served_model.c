/* served_model.c: see served_model.h. */
#include "server/served_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

const char *load_step_name(load_step s)
{
	static const char *const NAMES[] = {"open", "room", "budget", "digests", "content", "warm_up", "self_test", "changed"};
	return NAMES[s];
}

uint64_t model_memory_estimate(uint64_t file_bytes, const checkpoint *c, precision run_in)
{
	/* Packed layers are padded a little, and tokens stand there twice. */
	static const uint64_t bytes[] = {[PRECISION_F32] = 4, [PRECISION_BF16] = 2, [PRECISION_INT8] = 1};
	const uint64_t stored = c->stores_int8 ? 1 : dtype_size(c->stored_dtype);
	return file_bytes + file_bytes / stored * bytes[run_in] * 5 / 4;
}

/* Messages name the path the operator knows, not the descriptor the files were read through. */
static void show_path(wn_error *err, const char *internal, const char *shown)
{
	char *at;
	for (int i = 0; i < 4 && (at = strstr(err->message, internal)); i++) {
		wn_error fixed = {0};
		wn_fail(&fixed, err->code, "%.*s%s%s", (int)(at - err->message), err->message, shown,
			at + strlen(internal));
		*err = fixed;
	}
	if (!strstr(err->message, shown))
		wn_fail_prefix(err, "%s", shown);
}

wn_code model_check_budget(uint64_t bytes, uint64_t left, const char *what, wn_error *err)
{
	if (bytes <= left)
		return WN_OK;
	/* Tenths, the need rounded up and the rest down: they always show which is larger. */
	const unsigned long long need = (bytes * 10 + ((1 << 20) - 1)) >> 20, rest = left * 10 >> 20;
	return wn_fail(err, WN_TOO_LARGE, "%s about %llu.%llu MiB of memory, model.memory_budget has %llu.%llu MiB left", what, need / 10, need % 10,
		       rest / 10, rest % 10);
}

static wn_code check_budget(const load_request *q, uint64_t bytes, const char *what, load_step *step, wn_error *err)
{
	const wn_code code = model_check_budget(bytes, q->memory_left, what, err);
	if (code != WN_OK)
		*step = LOAD_BUDGET;
	return code;
}

/* winnow.json first: it says what the rest must be. */
static wn_code check_manifest(const load_request *q, const char *path, load_step *step, wn_error *err)
{
	char file[96];
	manifest m = {0};
	snprintf(file, sizeof file, "%s/winnow.json", path);
	*step = LOAD_CONTENT;
	wn_code code = manifest_read(&m, file, err);
	if (code != WN_OK)
		return code;
	*step = LOAD_DIGESTS;
	code = check_budget(q, q->file_bytes, "its files alone take", step, err); /* they are read before it is known what becomes of them */
	if (code == WN_OK && q->verify_digests && (!m.files || json_object_size(m.files) == 0))
		code = wn_fail(err, WN_INVALID, "winnow.json: files: found none, expected the SHA-256 of every file");
	else if (code == WN_OK && q->verify_digests)
		code = manifest_verify(&m, path, err);
	manifest_close(&m);
	return code;
}

/* The weights were hashed once before they were read (above) and once after: an edit in between shows in one of the
 * two. */
static wn_code check_weights(const checkpoint *ckpt, load_step *step, wn_error *err)
{
	const char *named = json_string_value(json_object_get(ckpt->manifest.files, "model.safetensors"));
	if (!named || strcmp(named, ckpt->digest) == 0)
		return WN_OK;
	*step = LOAD_DIGESTS;
	return wn_fail(err, WN_INVALID, "model.safetensors: found %s, winnow.json says %s", ckpt->digest, named);
}

/* The weights are read, or there is no telling in what they are stored, and packed when there is memory for that. */
static wn_code open_classifier(served_model *m, const load_request *q, const char *path, load_step *step, wn_error *err)
{
	const checkpoint_options opt = {
	    .leave_weights = true,
	    .read_weights = true, /* a file cut short must not be a SIGBUS here */
	};
	checkpoint ckpt;
	*step = LOAD_CONTENT;
	wn_code code = checkpoint_load(&ckpt, path, &opt, err);
	if (code != WN_OK)
		return code;
	const precision run_in = q->precision ? (precision)(q->precision - 1) : checkpoint_precision(&ckpt);
	m->bytes = model_memory_estimate(q->file_bytes, &ckpt, run_in);
	code = check_budget(q, m->bytes, "takes", step, err);
	if (code == WN_OK)
		code = classifier_from_checkpoint_as(&m->classifier, &ckpt, run_in, err);
	checkpoint_close(&ckpt); /* nothing is left in it when the classifier has it */
	return code;
}

/* Of a request with the longest prompt. */
static double work_of(const classifier *c)
{
	const checkpoint *ckpt = classifier_checkpoint(c);
	return blip2_request_flops(blip2_get_config(ckpt->model), ckpt->manifest.max_text_tokens, classifier_num_labels(c));
}

/* The first one tells what all of them take. A session is for as many threads as OpenMP would start here, and loading itself has one. */
static wn_code open_sessions(served_model *m, const load_request *q, load_step *step, wn_error *err)
{
	const int own = omp_get_max_threads();
	wn_code code = WN_OK;
	m->threads = placement_threads(q->placement, work_of(m->classifier));
	omp_set_num_threads(m->threads);
	for (int i = 0; code == WN_OK && i < q->placement->instances; i++) {
		code = classifier_session_open(&m->sessions[i], m->classifier, q->max_batch, err);
		if (code != WN_OK) {
			wn_fail_prefix(err, "inference instance %d", i);
			break;
		}
		m->instances++;
		if (i == 0) {
			m->bytes += (uint64_t)q->placement->instances * classifier_session_bytes(m->sessions[0]);
			code = check_budget(q, m->bytes, "takes", step, err);
		}
	}
	omp_set_num_threads(own);
	return code;
}

wn_code model_load(served_model **out, const load_request *q, load_step *step, wn_error *err)
{
	wn_error local = {0};
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", q->dir_fd);
	*step = LOAD_OPEN;
	*out = NULL;
	served_model *m = calloc(1, sizeof *m);
	if (!m)
		return wn_fail(err, WN_NOMEM, "%s: out of memory", q->shown);
	atomic_init(&m->references, 1);
	wn_code code = check_manifest(q, path, step, &local);
	if (code == WN_OK)
		code = open_classifier(m, q, path, step, &local);
	if (code == WN_OK && q->verify_digests)
		code = check_weights(classifier_checkpoint(m->classifier), step, &local);
	if (code == WN_OK)
		code = open_sessions(m, q, step, &local);
	if (code != WN_OK) {
		show_path(&local, path, q->shown);
		model_free(m);
		return wn_fail(err, code, "%s", local.message);
	}
	const checkpoint *ckpt = classifier_checkpoint(m->classifier);
	snprintf(m->name, sizeof m->name, "%s", *q->name ? q->name : ckpt->manifest.name);
	snprintf(m->version, sizeof m->version, "%d", q->version);
	m->number = q->version;
	memcpy(m->digest, ckpt->digest, sizeof m->digest);
	*out = m;
	return WN_OK;
}

void model_retain(served_model *m) { atomic_fetch_add(&m->references, 1); }

void registry_release(served_model **mp)
{
	served_model *m = *mp;
	*mp = NULL;
	if (!m || atomic_fetch_sub(&m->references, 1) != 1)
		return;
	if (m->retire)
		m->retire(m, m->retire_cls);
	else
		model_free(m);
}

void model_free(served_model *m)
{
	for (int i = 0; i < m->instances; i++)
		classifier_session_close(&m->sessions[i]);
	classifier_session_close(&m->aside);
	classifier_close(&m->classifier);
	free(m);
}
