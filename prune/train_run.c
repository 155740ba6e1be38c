/* train_run.c: see train_run.h. */
#include "prune/train_run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/file.h"
#include "model/checkpoint.h"
#include "model/classifier.h"
#include "model/prompt.h"
#include "prune/train_state.h"

#define MAX_TOKENIZER_BYTES ((size_t)256 << 20)

wn_code train_run_path(const train_config *c, const char *name, char *buf, wn_error *err)
{
	if (snprintf(buf, PATH_MAX, "%s/%s", c->run_dir, name) >= PATH_MAX / 2)
		return wn_fail(err, WN_TOO_LARGE, "run_dir: path longer than %d bytes", PATH_MAX / 2);
	return WN_OK;
}

static wn_code make_dirs(const char *path, wn_error *err)
{
	char buf[PATH_MAX];
	if (snprintf(buf, sizeof buf, "%s", path) >= (int)sizeof buf)
		return wn_fail(err, WN_TOO_LARGE, "%.100s…: path too long", path);
	for (char *p = buf + 1;; p++) {
		if (*p && *p != '/')
			continue;
		char end = *p;
		*p = 0;
		if (mkdir(buf, 0755) && errno != EEXIST)
			return wn_fail(err, WN_IO, "%s: %s", buf, strerror(errno));
		*p = end;
		if (!end)
			return WN_OK;
	}
}

static wn_code prepare_directory(train_run *r, bool resume, wn_error *err)
{
	char path[PATH_MAX];
	const train_config *c = r->config;
	wn_code rc = make_dirs(c->run_dir, err);
	if (!rc)
		rc = train_run_path(c, "lock", path, err);
	if (rc)
		return rc;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return wn_fail(err, WN_IO, "%s: %s", path, strerror(errno));
	r->lock_fd_plus_1 = fd + 1;
	if (flock(fd, LOCK_EX | LOCK_NB))
		return wn_fail(err, WN_IO, "%s: another process is training in this directory", c->run_dir);
	if (!resume && train_state_exists(c->run_dir))
		return wn_fail(err, WN_INVALID,
			       "run_dir: %s already holds a run: add --resume to continue it, or choose another directory", c->run_dir);
	return WN_OK;
}

/* ---- data ---- */

static wn_code read_split(train_run *r, split_data *s, const char *name, task t, wn_error *err)
{
	if (s->used || !*name)
		return WN_OK;
	if (snprintf(s->name, sizeof s->name, "%s", name) >= (int)sizeof s->name || strchr(name, '/'))
		return wn_fail(err, WN_INVALID, "%s: split \"%.60s\" is not a directory's name", TASK_NAMES[t], name);
	const train_config *c = r->config;
	wn_code rc = t == TASK_AUDIT ? dataset_read(&s->dataset, c->data_dir, name, r->manifest.labels, r->manifest.num_labels,
						    DATASET_NEEDS_LABEL, (size_t)c->limit, err)
				     : dataset_read(&s->dataset, c->data_dir, name, NULL, 0, DATASET_NEEDS_CAPTION, (size_t)c->limit,
						    err);
	s->used = rc == WN_OK;
	return rc;
}

static wn_code read_splits(train_run *r, wn_error *err)
{
	task tasks[NUM_TASKS];
	const train_config *c = r->config;
	int n = train_config_phases(c, tasks);
	wn_code rc = WN_OK;
	for (int i = 0; !rc && i < n; i++) {
		task t = tasks[i];
		rc = read_split(r, &r->train[t], c->phase[t].split, t, err);
		if (!rc)
			rc = read_split(r, &r->validation[t], c->phase[t].validation, t, err);
		if (!rc && t == TASK_AUDIT && c->phase[t].caption_replay > 0)
			rc = read_split(r, &r->train[TASK_CAPTION], c->phase[TASK_CAPTION].split, TASK_CAPTION, err);
	}
	return rc;
}

typedef struct decoding {
	const train_run *run;
	progress progress;
} decoding;

static int show_decoding(void *ctx, size_t done, size_t total)
{
	decoding *d = ctx;
	progress_update(&d->progress, (int64_t)done, "");
	return d->run->stop && *d->run->stop;
}

static wn_code open_images(train_run *r, split_data *s, int side, wn_error *err)
{
	if (!s->used)
		return WN_OK;
	char path[PATH_MAX], file[PATH_MAX + 160];
	const train_config *c = r->config;
	wn_code rc = *c->cache_dir ? WN_OK : train_run_path(c, "cache", path, err);
	if (!rc && *c->cache_dir && snprintf(path, sizeof path, "%s", c->cache_dir) >= (int)sizeof path)
		rc = wn_fail(err, WN_TOO_LARGE, "data.cache: path too long");
	if (!rc)
		rc = make_dirs(path, err);
	if (rc)
		return rc;
	if (c->limit)
		snprintf(file, sizeof file, "%s/%s-%d-first%lld.rgb", path, s->name, side, (long long)c->limit);
	else
		snprintf(file, sizeof file, "%s/%s-%d.rgb", path, s->name, side);
	decoding d = {.run = r};
	char label[64];
	snprintf(label, sizeof label, "decode %.40s", s->name);
	progress_start(&d.progress, r->out, label, 0, (int64_t)s->dataset.count, (double)c->log_every_ns * 1e-9);
	int threads = c->threads ? c->threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
	rc = image_cache_open(&s->images, file, &s->dataset, side, threads, show_decoding, &d, err);
	if (!rc && s->images.decoded)
		progress_finish(&d.progress, (int64_t)s->dataset.count, "");
	return rc;
}

static wn_code open_caches(train_run *r, wn_error *err)
{
	/* even, so that the crop's centre is between pixels as the whole image's is */
	int side = (int)ceil(r->image_processor.size * r->config->cache_scale / 2) * 2;
	wn_code rc = WN_OK;
	for (int t = 0; !rc && t < NUM_TASKS; t++) {
		rc = open_images(r, &r->train[t], side, err);
		if (!rc)
			rc = open_images(r, &r->validation[t], r->image_processor.size, err);
	}
	return rc;
}

static wn_code build_sequences(train_run *r, wn_error *err)
{
	const train_config *c = r->config;
	const blip2_config *bc = blip2_get_config(r->model);
	r->max_len = bc->max_position_embeddings - bc->num_query_tokens;
	if (r->max_len < 1)
		return wn_fail(err, WN_INVALID, "max_position_embeddings: found %d, expected more than %d queries",
			       bc->max_position_embeddings, bc->num_query_tokens);
	sequence_spec spec = {.tokenizer = r->tokenizer,
			      .manifest = &r->manifest,
			      .max_caption_tokens = c->max_caption_tokens,
			      .blank_text = c->modalities == MODALITIES_IMAGE,
			      .end_token = c->end_token ? bc->eos_token_id : -1,
			      .max_len = r->max_len};
	wn_code rc = WN_OK;
	for (int t = 0; !rc && t < NUM_TASKS; t++) {
		spec.caption_prompt = t == TASK_CAPTION ? c->caption_prompt : NULL;
		if (r->train[t].used)
			rc = sequence_set_build(&r->train[t].sequences, &r->train[t].dataset, &spec, err);
		if (!rc && r->validation[t].used)
			rc = sequence_set_build(&r->validation[t].sequences, &r->validation[t].dataset, &spec, err);
	}
	return rc;
}

/* ---- tokenizer ---- */

/* The pieces of the prompt template between its placeholders, as prompt_encode encodes them; at most 3. */
static int split_frame(char *copy, const char **pieces)
{
	static const char *const marks[] = {"{text}", "{assist}"};
	int n = 0;
	for (char *p = copy, *start = copy;; p++) {
		size_t skip = 0;
		for (int k = 0; k < 2; k++)
			if (!strncmp(p, marks[k], strlen(marks[k])))
				skip = strlen(marks[k]);
		if (*p && !skip)
			continue;
		bool end = !*p;
		if (p > start && n < 3)
			pieces[n++] = start;
		*p = 0;
		if (end)
			return n;
		p += skip - 1;
		start = p + 1;
	}
}

#define MIN_ANSWER_COUNT 64 /* an answer that no training sample has must still be a merge or two, not a row of bytes */

/* What the model will read and write, as often as it will: every text of the training splits, and with each sample the frame
 * it stands in and the answer it asks for. Counted once, frame and verbalizers would never be merged: each label would cost
 * ten byte tokens in every request. */
static wn_code train_tokenizer(train_run *r, wn_error *err)
{
	static const char *const specials[] = {"<s>", "<pad>", "</s>", "<unk>"}; /* OPT's ids 0 to 3 */
	const char *pieces[3];
	size_t count = (size_t)(r->manifest.num_labels + 4) * MIN_ANSWER_COUNT, n = 0;
	for (int t = 0; t < NUM_TASKS; t++)
		count += 8 * r->train[t].dataset.count;
	char *frame = strdup(r->manifest.prompt);
	const char **texts = calloc(count, sizeof *texts);
	if (!texts || !frame) {
		free(texts);
		free(frame);
		return wn_fail(err, WN_NOMEM, "no memory for %zu texts", count);
	}
	const int num_pieces = split_frame(frame, pieces);
	for (int i = 0; i < MIN_ANSWER_COUNT; i++) {
		texts[n++] = r->config->caption_prompt;
		for (int k = 0; k < num_pieces; k++)
			texts[n++] = pieces[k];
		for (int k = 0; k < r->manifest.num_labels; k++)
			texts[n++] = r->manifest.labels[k].verbalizer;
	}
	for (int t = 0; t < NUM_TASKS; t++)
		for (size_t i = 0; i < r->train[t].dataset.count; i++) {
			const sample *s = &r->train[t].dataset.samples[i];
			const char *const columns[] = {s->text, s->assist, s->caption,
						       t == TASK_CAPTION ? r->config->caption_prompt : "",
						       s->label >= 0 ? r->manifest.labels[s->label].verbalizer : ""};
			for (int k = 0; k < 5; k++)
				if (*columns[k])
					texts[n++] = columns[k];
			for (int k = 0; t == TASK_AUDIT && k < num_pieces; k++)
				texts[n++] = pieces[k];
		}
	bpe_trainer_options o = {.vocab_size = (size_t)r->config->vocab_size, .special_tokens = specials, .num_special_tokens = 4};
	wn_code rc = bpe_train(r->tokenizer_path, texts, n, &o, err);
	free(texts);
	free(frame);
	return rc;
}

static wn_code copy_file(const char *from, const char *to, wn_error *err)
{
	char *data = NULL;
	size_t len = 0;
	wn_code rc = file_read(from, MAX_TOKENIZER_BYTES, &data, &len, err);
	if (!rc)
		rc = file_write_atomic(to, data, len, err);
	free(data);
	return rc;
}

/* RUN/tokenizer.json: what a resumed run finds there, else the configured file, init_from's, or a trained one. */
static wn_code open_tokenizer(train_run *r, bool resume, wn_error *err)
{
	char from[PATH_MAX];
	const train_config *c = r->config;
	wn_code rc = WN_OK;
	if (!(resume && access(r->tokenizer_path, F_OK) == 0)) {
		if (*c->tokenizer) {
			rc = copy_file(c->tokenizer, r->tokenizer_path, err);
		} else if (*c->init_from) {
			if (snprintf(from, sizeof from, "%s/tokenizer.json", c->init_from) >= (int)sizeof from)
				return wn_fail(err, WN_TOO_LARGE, "model.init_from: path too long");
			rc = copy_file(from, r->tokenizer_path, err);
		} else {
			rc = train_tokenizer(r, err);
		}
	}
	if (!rc)
		rc = tokenizer_open(&r->tokenizer, r->tokenizer_path, err);
	if (!rc && tokenizer_vocab_size(r->tokenizer) > (size_t)blip2_get_config(r->model)->vocab_size)
		rc = wn_fail(err, WN_INVALID, "%s: %zu tokens, but the model's vocab_size is %d", r->tokenizer_path,
			     tokenizer_vocab_size(r->tokenizer), blip2_get_config(r->model)->vocab_size);
	return rc;
}

/* ---- model ---- */

/* Weights, gradients and AdamW's two moments, before they are touched: the kernel's answer to too much is to kill. */
static wn_code check_memory(const blip2 *m, wn_error *err)
{
	const double need = 4.0 * sizeof(float) * (double)blip2_weights_count(m);
	const double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
	if (need > have)
		return wn_fail(err, WN_TOO_LARGE,
			       "model: %.1f M parameters take %.1f GB with their gradients and moments, this machine has %.1f GB",
			       (double)blip2_weights_count(m) * 1e-6, need * 1e-9, have * 1e-9);
	return WN_OK;
}

static wn_code model_from_scratch(train_run *r, wn_error *err)
{
	blip2_config bc;
	char text[96];
	wn_code rc = train_config_model(r->config, &bc, err);
	if (!rc)
		rc = blip2_create(&r->model, &bc, err);
	if (!rc)
		rc = check_memory(r->model, err);
	if (rc)
		return rc;
	blip2_init_weights(r->model, (uint64_t)r->config->seed);
	/* mean and std are BlipImageProcessor's defaults */
	int n = snprintf(text, sizeof text, "{\"size\": {\"height\": %d, \"width\": %d}}", bc.image_size, bc.image_size);
	return image_processor_parse(&r->image_processor, text, (size_t)n, err);
}

/* A checkpoint's parts; the manifest's own labels and prompt stand in for what the configuration leaves out. */
static wn_code model_from_checkpoint(train_run *r, wn_error *err)
{
	checkpoint ck = {0};
	checkpoint_options o = {.skip_digest = true};
	manifest *m = &r->manifest;
	wn_code rc = checkpoint_load(&ck, r->config->init_from, &o, err);
	if (rc)
		return rc;
	if (m->num_labels == 0 && ck.has_manifest) {
		m->num_labels = ck.manifest.num_labels;
		memcpy(m->labels, ck.manifest.labels, sizeof m->labels);
	}
	if (!*m->prompt && ck.has_manifest && ck.manifest.prompt) {
		free(m->prompt);
		m->prompt = strdup(ck.manifest.prompt);
		m->max_text_tokens = ck.manifest.max_text_tokens;
	}
	if (!m->prompt || !*m->prompt || m->num_labels < 2) {
		rc = wn_fail(err, WN_INVALID, "%s has no winnow.json with prompt and labels: set `prompt` and `labels`",
			     r->config->init_from);
	} else {
		r->image_processor = ck.image_processor;
		r->model = ck.model;
		ck.model = NULL;
		if (r->image_processor.size > AUGMENT_MAX_SIZE)
			rc = wn_fail(err, WN_UNSUPPORTED, "%s: image size %d, expected at most %d", r->config->init_from,
				     r->image_processor.size, AUGMENT_MAX_SIZE);
	}
	checkpoint_close(&ck);
	return rc;
}

/* ---- identity ---- */

static int add_split(json_t *o, const split_data *s)
{
	return s->used && json_object_set_new(o, s->name, json_pack("{s:s, s:I}", "metadata", s->dataset.digest, "samples",
								     (json_int_t)s->dataset.count));
}

/* {"parameters":…, "shapes": digest, "tokenizer": digest, "data": {…}, "seed":…, "modalities":…} */
static json_t *identity_json(const train_run *r, const char *tokenizer_digest)
{
	char shapes[DIGEST_SIZE], *config = hf_config_write(blip2_get_config(r->model));
	if (!config)
		return NULL;
	digest_memory(shapes, config, strlen(config));
	free(config);
	json_t *data = json_object();
	int bad = data == NULL;
	for (int t = 0; !bad && t < NUM_TASKS; t++)
		bad = add_split(data, &r->train[t]) || add_split(data, &r->validation[t]);
	if (bad) {
		json_decref(data);
		return NULL;
	}
	return json_pack("{s:I, s:s, s:s, s:s, s:o, s:I, s:s}", "parameters", (json_int_t)blip2_parameter_count(r->model), "shapes",
			 shapes, "tokenizer", tokenizer_digest, "prompt", r->manifest.prompt, "data", data, "seed",
			 (json_int_t)r->config->seed, "modalities", MODALITY_NAMES[r->config->modalities]);
}

/* A resumed run must be the run that was interrupted; the manifest it left says which key is not. */
static wn_code check_same_run(const char *path, const json_t *id, wn_error *err)
{
	char *text = NULL;
	size_t len = 0;
	const char *key;
	json_t *value;
	if (access(path, F_OK))
		return WN_OK;
	wn_code rc = file_read(path, (size_t)16 << 20, &text, &len, err);
	if (rc)
		return rc;
	json_error_t je;
	json_t *old = json_loadb(text, len, 0, &je);
	free(text);
	if (!old)
		rc = wn_fail(err, WN_INVALID, "%s: %s", path, je.text);
	json_object_foreach((json_t *)(uintptr_t)id, key, value)
		if (!rc && !json_equal(value, json_object_get(json_object_get(old, "identity"), key)))
			rc = wn_fail(err, WN_INVALID, "%s: cannot resume: \"%s\" is not what the run began with", path, key);
	json_decref(old);
	return rc;
}

static wn_code write_manifest(train_run *r, const train_run_options *o, wn_error *err)
{
	const bool dry = o->dry;
	char digest[DIGEST_SIZE] = "", path[PATH_MAX];
	wn_code rc = dry ? WN_OK : digest_file(digest, r->tokenizer_path, err);
	if (rc)
		return rc;
	char *config = train_config_text(r->config);
	json_t *id = identity_json(r, digest);
	char *id_text = id ? json_dumps(id, JSON_SORT_KEYS | JSON_COMPACT) : NULL;
	json_t *all = id_text && config ? json_pack("{s:i, s:s, s:O, s:s}", "format", 1, "winnow", WINNOW_VERSION, "identity", id,
						    "config", config)
					: NULL;
	char *text = all ? json_dumps(all, JSON_INDENT(2)) : NULL;
	if (!text)
		rc = wn_fail(err, WN_NOMEM, "no memory for the run's manifest");
	else
		digest_memory(r->identity, id_text, strlen(id_text));
	if (!rc && !dry && !(rc = train_run_path(r->config, "manifest.json", path, err))) {
		if (o->resume)
			rc = check_same_run(path, id, err);
		if (!rc)
			rc = file_write_atomic(path, text, strlen(text), err);
	}
	free(text);
	free(id_text);
	free(config);
	json_decref(all);
	json_decref(id);
	return rc;
}

/* What the shapes and the size of the splits make of the schedule, before images are decoded for it. */
static wn_code check_stretches(const train_run *r, wn_error *err)
{
	task tasks[NUM_TASKS];
	const blip2_config *bc = blip2_get_config(r->model);
	const int n = train_config_phases(r->config, tasks);
	wn_code rc = WN_OK;
	for (int i = 0; !rc && i < n; i++) {
		rc = train_config_stretches(r->config, tasks[i], train_run_steps(r, tasks[i]), err);
		if (!rc && r->config->phase[tasks[i]].vision_first_steps && bc->vision.hidden_size != bc->qformer.hidden_size)
			rc = wn_fail(err, WN_UNSUPPORTED,
				     "%s.vision_first_steps: needs one hidden_size for vision and Q-Former, found %d and %d",
				     TASK_NAMES[tasks[i]], bc->vision.hidden_size, bc->qformer.hidden_size);
	}
	return rc;
}

/* What validation, eval and a server will refuse (verbalizers that are prefixes of each other, too few positions) is refused
 * before the first step, not after hours of them. */
static wn_code check_classifier(const train_run *r, wn_error *err)
{
	classifier *c = NULL;
	wn_code rc = classifier_borrow(&c, r->model, r->tokenizer, &r->image_processor, &r->manifest, err);
	classifier_close(&c);
	return rc;
}

wn_code train_run_open(train_run *out, const train_config *c, const train_run_options *o, wn_error *err)
{
	char path[PATH_MAX];
	*out = (train_run){.config = c, .stop = o->stop, .out = o->out};
	wn_code rc = train_run_path(c, "tokenizer.json", path, err);
	if (!rc && !(out->tokenizer_path = strdup(path)))
		rc = wn_fail(err, WN_NOMEM, "no memory for a path");
	if (!rc && !o->dry)
		rc = prepare_directory(out, o->resume, err);
	if (!rc)
		rc = train_config_manifest(c, &out->manifest, err);
	if (!rc)
		rc = *c->init_from ? model_from_checkpoint(out, err) : model_from_scratch(out, err);
	if (!rc)
		rc = read_splits(out, err);
	if (!rc)
		rc = check_stretches(out, err);
	if (!rc && !o->dry) {
		rc = open_tokenizer(out, o->resume, err);
		if (!rc)
			rc = prompt_check(out->tokenizer, out->manifest.prompt, out->manifest.max_text_tokens, err);
		if (!rc)
			rc = check_classifier(out, err);
		if (!rc)
			rc = build_sequences(out, err);
	}
	if (!rc)
		rc = write_manifest(out, o, err);
	if (!rc && !o->dry)
		rc = open_caches(out, err);
	if (rc)
		train_run_close(out);
	return rc;
}

static void close_split(split_data *s)
{
	image_cache_close(&s->images);
	sequence_set_close(&s->sequences);
	dataset_close(&s->dataset);
}

void train_run_close(train_run *r)
{
	for (int t = 0; t < NUM_TASKS; t++) {
		close_split(&r->train[t]);
		close_split(&r->validation[t]);
	}
	tokenizer_close(&r->tokenizer);
	blip2_close(&r->model);
	manifest_close(&r->manifest);
	free(r->tokenizer_path);
	if (r->lock_fd_plus_1)
		close(r->lock_fd_plus_1 - 1);
	*r = (train_run){0};
}

int64_t train_run_steps(const train_run *r, task t)
{
	const phase_config *p = &r->config->phase[t];
	if (p->steps)
		return p->steps;
	double fresh = p->batch_size * (1 - (t == TASK_AUDIT ? p->caption_replay : 0)); /* samples of the split a step */
	double steps = ceil(p->epochs * (double)r->train[t].dataset.count / fresh);
	return steps < 1 ? 1 : (int64_t)steps;
}
