/* workspace.c: see workspace.h. */
#include "prune/compress/workspace.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/classifier.h"
#include "model/dnn.h"
#include "prune/compress/compress_log.h"
#include "prune/evaluate.h"
#include "prune/export_dir.h"
#include "prune/run_changes.h"
#include "prune/run_dir.h"

static wn_code load_teacher(workspace *w, wn_error *err)
{
	const compress_config *c = w->config;
	const checkpoint_options o = {0};
	wn_code rc = checkpoint_load(&w->teacher, c->teacher, &o, err);
	if (!rc && (!w->teacher.has_manifest || !w->teacher.tokenizer))
		rc = wn_fail(err, WN_INVALID, "teacher: %s has no %s", c->teacher, w->teacher.tokenizer ? "winnow.json with labels" : "tokenizer.json");
	if (rc)
		return rc;
	if (snprintf(w->tokenizer_path, sizeof w->tokenizer_path, "%s/tokenizer.json", c->teacher) >= (int)sizeof w->tokenizer_path)
		return wn_fail(err, WN_TOO_LARGE, "teacher: path too long");
	w->manifest = w->teacher.manifest;
	if (snprintf(w->manifest.name, sizeof w->manifest.name, "%s", c->name) >= (int)sizeof w->manifest.name)
		return wn_fail(err, WN_INVALID, "name: longer than %zu bytes", sizeof w->manifest.name - 1);
	/* What the teacher's files and answers say does not hold for a student. */
	w->manifest.lineage = w->manifest.quantization = w->manifest.self_test = w->manifest.widths = w->manifest.files = NULL;
	snprintf(w->manifest.precision, sizeof w->manifest.precision, "f32");
	if ((rc = manifest_check(&w->manifest, err)))
		return rc;
	classifier *probe = NULL; /* refuses what cannot classify, with its own words */
	rc = classifier_borrow(&probe, w->teacher.model, w->teacher.tokenizer, &w->teacher.image_processor, &w->manifest, err);
	classifier_close(&probe);
	return rc ? rc : label_trie_build(&w->trie, w->teacher.tokenizer, &w->manifest, err);
}

static wn_code read_labelled(workspace *w, split_data *s, const char *name, const char *key, size_t limit, wn_error *err)
{
	if (!*name)
		return WN_OK;
	const manifest *m = &w->manifest;
	return split_read(s, w->config->data_dir, name, key, m->labels, m->num_labels, DATASET_NEEDS_LABEL, limit, err);
}

/* The prompts of a split that will be evaluated. */
static wn_code build_sequences(workspace *w, split_data *s, wn_error *err)
{
	const blip2_config *bc = blip2_get_config(w->teacher.model);
	const sequence_spec spec = {.tokenizer = w->teacher.tokenizer, .manifest = &w->manifest, .end_token = -1,
				    .max_len = bc->max_position_embeddings - bc->num_query_tokens};
	return s->used ? sequence_set_build(&s->sequences, &s->dataset, &spec, err) : WN_OK;
}

/* The labelled ads once more and those behind them, all without labels. */
static wn_code read_unlabelled_ads(workspace *w, wn_error *err)
{
	const compress_config *c = w->config;
	const size_t labelled = w->train.dataset.count, all = labelled + (size_t)c->unlabelled_ads;
	wn_code rc = split_read(&w->ads, c->data_dir, c->split, "data.split", NULL, 0, 0, all, err);
	if (!rc && w->ads.dataset.count < all)
		rc = wn_fail(err, WN_INVALID, "data.unlabelled_ads: found %lld, split %s has %zu behind the labelled ones",
			     (long long)c->unlabelled_ads, c->split, w->ads.dataset.count - labelled);
	return rc;
}

static wn_code read_data(workspace *w, wn_error *err)
{
	const compress_config *c = w->config;
	wn_code rc = read_labelled(w, &w->train, c->split, "data.split", (size_t)c->samples, err);
	if (!rc)
		rc = read_labelled(w, &w->validation, c->validation, "data.validation", 0, err);
	if (!rc)
		rc = read_labelled(w, &w->test, c->test, "data.test", 0, err);
	if (!rc && c->unlabelled > 0)
		rc = split_read(&w->unlabelled, c->data_dir, c->unlabelled_split, "data.unlabelled_split", NULL, 0, 0, 0, err);
	if (!rc && !w->train.used)
		rc = wn_fail(err, WN_INVALID, "data.split: empty, expected the name of a split");
	if (!rc && c->unlabelled_ads > 0)
		rc = read_unlabelled_ads(w, err);
	if (!rc)
		rc = build_sequences(w, &w->validation, err);
	return rc ? rc : build_sequences(w, &w->test, err);
}

/* dry: validation and test are not looked at, and need no pixels. */
static wn_code open_images(workspace *w, bool dry, wn_error *err)
{
	const compress_config *c = w->config;
	const int size = w->teacher.image_processor.size;
	const int side = c->cache_scale > 1 ? (int)ceil(size * c->cache_scale / 2) * 2 : size; /* even: see train_run.c */
	char path[PATH_MAX];
	wn_code rc = run_dir_path(c->run_dir, "cache", path, err);
	const split_decoding o = {.cache_dir = *c->cache_dir ? c->cache_dir : path, .threads = c->threads,
				  .log_seconds = (double)c->log_every_ns * 1e-9, .stop = w->stop, .out = w->out};
	if (!rc)
		rc = split_open_images(w->ads.used ? &w->ads : &w->train, side, &o, err);
	if (!rc && w->unlabelled.used)
		rc = split_open_images(&w->unlabelled, side, &o, err);
	if (!rc && w->validation.used && !dry)
		rc = split_open_images(&w->validation, size, &o, err);
	if (!rc && w->test.used && !dry)
		rc = split_open_images(&w->test, size, &o, err);
	return rc;
}

static wn_code open_transfer(workspace *w, wn_error *err)
{
	const compress_config *c = w->config;
	w->batch_options = (batch_options){.image_processor = w->teacher.image_processor, .augment = c->augment,
					   .augment_on = augment_changes(&c->augment)};
	const split_data *ads = w->ads.used ? &w->ads : &w->train;
	const transfer_options o = {.labelled = &w->train.dataset,
				    .samples = w->train.dataset.count,
				    .ads = &ads->dataset,
				    .ad_images = &ads->images,
				    .unlabelled_ads = (size_t)c->unlabelled_ads,
				    .recombined = (size_t)c->recombined,
				    .unlabelled_images = w->unlabelled.used ? &w->unlabelled.images : NULL,
				    .unlabelled = (size_t)c->unlabelled,
				    .views = c->views,
				    .augment = &c->augment,
				    .ads_share = c->ads_share,
				    .batch_size = c->batch_size,
				    .seed = (uint64_t)c->seed,
				    .tokenizer = w->teacher.tokenizer,
				    .manifest = &w->manifest};
	return transfer_open(&w->transfer, &o, err);
}

static json_t *split_json(const split_data *s)
{
	return s->used ? json_pack("{s:s, s:s, s:I}", "split", s->name, "metadata", s->dataset.digest, "samples", (json_int_t)s->dataset.count)
		       : json_null();
}

/* Names and answers, in order. */
static json_t *labels_json(const manifest *m)
{
	json_t *labels = json_array();
	for (int i = 0; labels && i < m->num_labels; i++)
		json_array_append_new(labels, json_pack("[s, s]", m->labels[i].name, m->labels[i].verbalizer));
	return labels;
}

/* What must not change between a run and its continuation. A setting that came later is in it only where it is used: what began before
 * it goes on. */
static json_t *identity_json(const workspace *w, const char *tokenizer_digest)
{
	const compress_config *c = w->config;
	json_t *stages = json_array();
	for (size_t i = 0; stages && i < c->stages.count; i++)
		json_array_append_new(stages, json_string(c->stages.items[i]));
	json_t *j = json_pack("{s:s, s:{s:o, s:o, s:o}, s:o, s:I, s:i, s:i, s:f, s:I, s:o*, s:I, s:I, s:i}", "teacher", w->teacher.digest, "data",
			      "train", split_json(&w->train), "validation", split_json(&w->validation), "unlabelled",
			      split_json(&w->unlabelled), "stages", stages, "seed", (json_int_t)c->seed, "start", c->start,
			      "target_kind", c->target_kind, "target", c->target, "unlabelled_ads", (json_int_t)c->unlabelled_ads, "views",
			      c->views > 0 ? json_integer(c->views) : NULL, "recombined", (json_int_t)c->recombined, "unlabelled", (json_int_t)c->unlabelled, "batch_size",
			      c->batch_size);
	json_t *more = json_pack("{s:{s:s, s:i, s:s}, s:s, s:s, s:o, s:s}", "importance", "method", IMPORTANCE_NAMES[c->importance],
				 "batches", c->importance_batches, "blocks", c->block_choice == BLOCKS_FROM_END ? "end" : "importance",
				 "precision", c->precision ? "bf16" : "f32", "prompt", w->manifest.prompt, "labels",
				 labels_json(&w->manifest), "tokenizer", tokenizer_digest);
	if (!j || !more || json_object_update(j, more)) {
		json_decref(j);
		j = NULL;
	}
	json_decref(more);
	return j;
}

static wn_code write_manifest(workspace *w, const workspace_options *o, wn_error *err)
{
	const compress_config *c = w->config;
	char tokenizer_digest[DIGEST_SIZE];
	wn_code rc = o->resume ? run_changes(&w->changed, &COMPRESS_CONFIG_SCHEMA, c, c->run_dir, COMPRESS_FIXED_KEYS, err) : WN_OK;
	if (!rc)
		rc = digest_file(tokenizer_digest, w->tokenizer_path, err);
	if (rc)
		return rc;
	char *config = config_text(&COMPRESS_CONFIG_SCHEMA, c);
	json_t *id = identity_json(w, tokenizer_digest);
	rc = config && id ? run_dir_write_manifest(c->run_dir, "compress", id, config, o->resume, o->dry, w->identity, err)
			  : wn_fail(err, WN_NOMEM, "no memory for the run's manifest");
	free(config);
	json_decref(id);
	return rc;
}

wn_code workspace_open(workspace *out, const compress_config *c, const workspace_options *o, wn_error *err)
{
	*out = (workspace){.config = c, .stop = o->stop, .out = o->out};
	wn_code rc = o->dry ? WN_OK : run_dir_open(c->run_dir, "compress", o->resume, &out->lock_fd_plus_1, err);
	if (!rc)
		rc = export_dir_check(c->export_dir, c->teacher, "the teacher", err);
	if (!rc)
		rc = load_teacher(out, err);
	if (!rc)
		rc = read_data(out, err);
	if (!rc)
		rc = write_manifest(out, o, err);
	if (!rc)
		rc = open_images(out, o->dry, err);
	if (!rc)
		rc = open_transfer(out, err);
	if (rc)
		workspace_close(out);
	return rc;
}

void workspace_close(workspace *w)
{
	transfer_close(&w->transfer);
	split_close(&w->train);
	split_close(&w->ads);
	split_close(&w->validation);
	split_close(&w->test);
	split_close(&w->unlabelled);
	label_trie_close(&w->trie);
	checkpoint_close(&w->teacher); /* the student's manifest borrows from it */
	json_decref(w->changed);
	if (w->lock_fd_plus_1)
		close(w->lock_fd_plus_1 - 1);
	*w = (workspace){0};
}

wn_code workspace_open_teacher(const workspace *w, bool hidden, teacher **out, wn_error *err)
{
	const compress_config *c = w->config;
	char cache[PATH_MAX];
	wn_code rc = run_dir_path(c->run_dir, "cache", cache, err);
	if (!rc)
		rc = run_dir_make(cache, err);
	const teacher_options o = {.model = w->teacher.model,
				   .digest = w->teacher.digest,
				   .set = w->transfer,
				   .trie = &w->trie,
				   .batch = &w->batch_options,
				   .pad_id = blip2_get_config(w->teacher.model)->pad_token_id,
				   .micro_batch = c->micro_batch ? c->micro_batch : c->batch_size,
				   .hidden = hidden,
				   .bf16 = c->precision && dnn_has_bf16(),
				   .cache_dir = *c->cache_dir ? c->cache_dir : cache,
				   .cache_limit = c->teacher_cache_mb << 20,
				   .stop = w->stop,
				   .out = w->out,
				   .log_seconds = (double)c->log_every_ns * 1e-9};
	return rc ? rc : teacher_open(out, &o, err);
}

static int eval_cancelled(void *ctx)
{
	const workspace *w = ctx;
	return w->stop && *w->stop;
}

wn_code workspace_evaluate(const workspace *w, const split_data *s, const blip2 *m, metrics *out, wn_error *err)
{
	batch_options bo = w->batch_options;
	bo.augment_on = false;
	classifier *c = NULL;
	const eval_data d = {.dataset = &s->dataset, .images = &s->images, .sequences = &s->sequences, .batch = &bo,
			     .batch_size = w->config->eval_batch, .cancelled = eval_cancelled, .ctx = (void *)(uintptr_t)w};
	wn_code rc = classifier_borrow(&c, m, w->teacher.tokenizer, &w->teacher.image_processor, &w->manifest, err);
	if (!rc)
		rc = evaluate_audit(&d, c, out, err);
	classifier_close(&c);
	return rc;
}

wn_code workspace_evaluate_json(const workspace *w, const split_data *s, const blip2 *m, json_t **out, wn_error *err)
{
	*out = NULL;
	if (!s->used) {
		*out = json_null();
		return WN_OK;
	}
	metrics *found = calloc(1, sizeof *found);
	wn_code rc = found ? workspace_evaluate(w, s, m, found, err) : wn_fail(err, WN_NOMEM, "no memory for metrics");
	if (!rc && !(*out = eval_json(found, s->name, &w->manifest)))
		rc = wn_fail(err, WN_NOMEM, "no memory for metrics");
	free(found);
	return rc;
}

wn_code workspace_save_student(const workspace *w, const char *dir, const blip2 *student, dtype d, const char *name, int64_t step,
                               const json_t *eval, wn_error *err)
{
	manifest man = w->manifest;
	json_t *copy = eval ? json_deep_copy(eval) : json_null();
	man.lineage = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:o}", "stage", "compress", "program", "winnow " WINNOW_VERSION,
				"teacher", w->teacher.digest, "iteration", name, "step", (json_int_t)step, "seed",
				(json_int_t)w->config->seed, "run", w->identity, "validation", copy);
	wn_code rc = man.lineage ? checkpoint_save(dir, student, &man, &w->teacher.image_processor, w->tokenizer_path, d, err)
				 : wn_fail(err, WN_NOMEM, "no memory for the lineage");
	json_decref(man.lineage);
	return rc;
}
