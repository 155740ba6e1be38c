/* train_run.c: see train_run.h. */
#include "prune/train_run.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/file.h"
#include "model/checkpoint.h"
#include "model/classifier.h"
#include "model/prompt.h"
#include "prune/export_dir.h"
#include "prune/memory_check.h"
#include "prune/run_changes.h"
#include "prune/run_dir.h"

#define MAX_TOKENIZER_BYTES ((size_t)256 << 20)

wn_code train_run_path(const train_config *c, const char *name, char *buf, wn_error *err)
{
	return run_dir_path(c->run_dir, name, buf, err);
}

/* ---- data ---- */

static wn_code read_split(train_run *r, split_data *s, const char *name, task t, wn_error *err)
{
	if (s->used || !*name)
		return WN_OK;
	const train_config *c = r->config;
	const bool audit = t == TASK_AUDIT;
	return split_read(s, c->data_dir, name, TASK_NAMES[t], audit ? r->manifest.labels : NULL, audit ? r->manifest.num_labels : 0,
			  audit ? DATASET_NEEDS_LABEL : DATASET_NEEDS_CAPTION, (size_t)c->limit, err);
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

static wn_code open_caches(train_run *r, wn_error *err)
{
	/* even, so that the crop's centre is between pixels as the whole image's is */
	const train_config *c = r->config;
	int side = (int)ceil(r->image_processor.size * c->cache_scale / 2) * 2;
	char path[PATH_MAX];
	wn_code rc = train_run_path(c, "cache", path, err);
	const split_decoding o = {.cache_dir = *c->cache_dir ? c->cache_dir : path, .threads = c->threads,
				  .log_seconds = (double)c->log_every_ns * 1e-9, .stop = r->stop, .out = r->out};
	for (int t = 0; !rc && t < NUM_TASKS; t++) {
		if (r->train[t].used)
			rc = split_open_images(&r->train[t], side, &o, err);
		if (!rc && r->validation[t].used)
			rc = split_open_images(&r->validation[t], r->image_processor.size, &o, err);
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

/* RUN/tokenizer.json: what a resumed run finds there, else the configured file, init_from's, or a trained one. */
static wn_code open_tokenizer(train_run *r, bool resume, wn_error *err)
{
	char from[PATH_MAX];
	const train_config *c = r->config;
	wn_code rc = WN_OK;
	if (!(resume && access(r->tokenizer_path, F_OK) == 0)) {
		if (*c->tokenizer) {
			rc = file_copy(c->tokenizer, r->tokenizer_path, MAX_TOKENIZER_BYTES, err);
		} else if (*c->init_from) {
			if (snprintf(from, sizeof from, "%s/tokenizer.json", c->init_from) >= (int)sizeof from)
				return wn_fail(err, WN_TOO_LARGE, "model.init_from: path too long");
			rc = file_copy(from, r->tokenizer_path, MAX_TOKENIZER_BYTES, err);
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

static wn_code model_from_scratch(train_run *r, wn_error *err)
{
	blip2_config bc;
	char text[96];
	wn_code rc = train_config_model(r->config, &bc, err);
	if (!rc)
		rc = blip2_create(&r->model, &bc, err);
	if (!rc)
		rc = memory_check("model", blip2_weights_count(r->model), MEMORY_OF_STEPS, 0, err);
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

static wn_code write_manifest(train_run *r, const train_run_options *o, wn_error *err)
{
	char digest[DIGEST_SIZE] = "";
	wn_code rc = o->dry ? WN_OK : digest_file(digest, r->tokenizer_path, err);
	if (rc)
		return rc;
	if (o->resume && (rc = run_changes(&r->changed, &TRAIN_CONFIG_SCHEMA, r->config, r->config->run_dir, TRAIN_FIXED_KEYS, err)))
		return rc;
	char *config = config_text(&TRAIN_CONFIG_SCHEMA, r->config);
	json_t *id = identity_json(r, digest);
	if (config && id)
		rc = run_dir_write_manifest(r->config->run_dir, NULL, id, config, o->resume, o->dry, r->identity, err);
	else
		rc = wn_fail(err, WN_NOMEM, "no memory for the run's manifest");
	free(config);
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
		rc = run_dir_open(c->run_dir, "train", o->resume, &out->lock_fd_plus_1, err);
	if (!rc)
		rc = export_dir_check(c->export_dir, c->init_from, "model.init_from", err);
	if (!rc)
		rc = train_config_manifest(c, &out->manifest, err);
	if (!rc)
		rc = *c->init_from ? model_from_checkpoint(out, err) : model_from_scratch(out, err);
	if (!rc)
		rc = manifest_check(&out->manifest, err);
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

void train_run_close(train_run *r)
{
	for (int t = 0; t < NUM_TASKS; t++) {
		split_close(&r->train[t]);
		split_close(&r->validation[t]);
	}
	tokenizer_close(&r->tokenizer);
	blip2_close(&r->model);
	manifest_close(&r->manifest);
	free(r->tokenizer_path);
	json_decref(r->changed);
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
