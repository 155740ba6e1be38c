/* train_config.c: see train_config.h. The table is the reference: key, default, range, meaning. */
#include "prune/train_config.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prune/shared_keys.h"

const char *const TASK_NAMES[] = {"caption", "audit", NULL};
const char *const MODALITY_NAMES[] = {"both", "text", "image", NULL};
static const char *const PRECISION_NAMES[] = {"f32", "bf16", NULL};
static const char *const DTYPE_NAMES[] = {"f32", "f16", "bf16", NULL};
static const char *const EXPORT_NAMES[] = {"best", "last", NULL};

/* clang-format off */
#define SHAPE_KEYS(field, name, hidden, layers, heads, ffn) \
	CONFIG_INT(train_config, field.hidden_size, "model." name ".hidden_size", hidden, 8, 16384, "width of the residual stream"), \
	CONFIG_INT(train_config, field.num_hidden_layers, "model." name ".num_hidden_layers", layers, 1, MAX_BLOCKS, "blocks"), \
	CONFIG_INT(train_config, field.num_attention_heads, "model." name ".num_attention_heads", heads, 1, 256, "attention heads; must divide hidden_size"), \
	CONFIG_INT(train_config, field.intermediate_size, "model." name ".intermediate_size", ffn, 8, 65536, "FFN width")

#define PHASE_KEYS(i, name, split_, validation_, steps_, lr) \
	CONFIG_STRING(train_config, phase[i].split, name ".split", split_, "training split"), \
	CONFIG_STRING(train_config, phase[i].validation, name ".validation", validation_, "validation split; empty: none"), \
	CONFIG_INT64(train_config, phase[i].steps, name ".steps", steps_, 0, 1e9, "optimiser steps; 0: epochs decides"), \
	CONFIG_DOUBLE(train_config, phase[i].epochs, name ".epochs", "0", 0, 1e6, "passes over the split, when steps is 0"), \
	CONFIG_INT(train_config, phase[i].batch_size, name ".batch_size", "32", 1, 65536, "samples a step"), \
	CONFIG_INT(train_config, phase[i].micro_batch, name ".micro_batch", "0", 0, 4096, "samples a forward; gradients add up to the batch; 0: the whole batch"), \
	CONFIG_DOUBLE(train_config, phase[i].learning_rate, name ".learning_rate", lr, 0, 10, "peak"), \
	CONFIG_DOUBLE(train_config, phase[i].min_learning_rate, name ".min_learning_rate", "0", 0, 10, "floor of the cosine"), \
	CONFIG_INT64(train_config, phase[i].warmup_steps, name ".warmup_steps", "100", 0, 1e9, "linear warm-up, once everything learns"), \
	CONFIG_INT64(train_config, phase[i].vision_first_steps, name ".vision_first_steps", "0", 0, 1e9, "steps in which the vision stack alone learns to name the image"), \
	CONFIG_DOUBLE(train_config, phase[i].vision_learning_rate, name ".vision_learning_rate", "1e-3", 0, 10, "peak of those steps"), \
	CONFIG_DOUBLE(train_config, phase[i].vision_patch_share, name ".vision_patch_share", "1", 0.1, 1, "share of the patches each of those steps looks at, drawn anew"), \
	CONFIG_INT64(train_config, phase[i].text_first_steps, name ".text_first_steps", "0", 0, 1e9, "steps, after those, in which only the language model learns")

static const config_key KEYS[] = {
	CONFIG_STRING(train_config, name, "name", "ad-audit", "the model's name in winnow.json"),
	CONFIG_STRING(train_config, run_dir, "run_dir", NULL, "where checkpoints, logs and caches go"),
	CONFIG_INT64(train_config, seed, "seed", "1", 0, 9e15, "initial weights, order of samples, augmentation"),
	CONFIG_INT(train_config, threads, "threads", "0", 0, 256, "0: as many as this process may use (affinity, cgroup quota)"),
	CONFIG_ENUM(train_config, modalities, "modalities", "both", MODALITY_NAMES, "text: every image is blank; image: every text is empty (baselines)"),
	CONFIG_ENUM(train_config, precision, "precision", "f32", PRECISION_NAMES, "of matrix products while training; bf16 is faster where the CPU has its instructions, and f32 where it has not"),
	CONFIG_SECTION("data", "an imagefolder: DIR/SPLIT/metadata.jsonl and images"),
	CONFIG_STRING(train_config, data_dir, "data.dir", NULL, "directory of the splits"),
	CONFIG_STRING(train_config, cache_dir, "data.cache", "", "decoded images; empty: run_dir/cache (share it between runs)"),
	CONFIG_DOUBLE(train_config, cache_scale, "data.cache_scale", "1.15", 1, 4, "side of cached training images over image_size"),
	CONFIG_INT64(train_config, limit, "data.limit", "0", 0, 1e9, "samples a split at most; 0: all"),
	CONFIG_SECTION("model", "shapes, when the model starts from scratch (ignored with init_from)"),
	CONFIG_STRING(train_config, init_from, "model.init_from", "", "checkpoint directory to fine-tune"),
	SHAPE_KEYS(vision, "vision", "192", "6", "3", "768"),
	SHAPE_KEYS(qformer, "qformer", "192", "2", "3", "768"),
	SHAPE_KEYS(text, "text", "256", "4", "4", "1024"),
	CONFIG_INT(train_config, image_size, "model.image_size", "112", 8, AUGMENT_MAX_SIZE, "pixels, square"),
	CONFIG_INT(train_config, patch_size, "model.patch_size", "14", 2, 64, "pixels; must divide image_size"),
	CONFIG_INT(train_config, num_query_tokens, "model.num_query_tokens", "16", 1, 512, "queries between image and text"),
	CONFIG_INT(train_config, cross_attention_frequency, "model.cross_attention_frequency", "1", 1, MAX_BLOCKS, "every n-th Q-Former block sees the image"),
	CONFIG_INT(train_config, vocab_size, "model.vocab_size", "2048", 260, 1 << 20, "of the trained tokenizer, and rows of the embedding"),
	CONFIG_INT(train_config, max_position_embeddings, "model.max_position_embeddings", "160", 8, 8192, "queries + prompt + answer must fit"),
	CONFIG_STRING(train_config, tokenizer, "tokenizer", "", "a tokenizer.json; empty: init_from's, else trained on the data"),
	CONFIG_STRING(train_config, prompt, "prompt", "", "with {text} and {assist}; empty: init_from's"),
	CONFIG_INT(train_config, max_text_tokens, "max_text_tokens", "96", 4, 2048, "prompt tokens kept"),
	CONFIG_STRING(train_config, caption_prompt, "caption_prompt", "画面：", "what a caption answers"),
	CONFIG_INT(train_config, max_caption_tokens, "max_caption_tokens", "32", 1, 1024, "caption tokens kept"),
	CONFIG_BOOL(train_config, end_token, "end_token", "true", "teach </s> behind every answer"),
	CONFIG_STRING_LIST(train_config, labels, "labels", "[]", "name | verbalizer | pass, review or block [| threshold [| review_threshold]]; empty: init_from's"),
	CONFIG_STRING_LIST(train_config, phases, "phases", "[audit]", "in order: caption, audit"),
	CONFIG_SECTION("caption", "phase: name what is pictured"),
	PHASE_KEYS(TASK_CAPTION, "caption", "caption", "caption_validation", "1000", "1e-3"),
	CONFIG_SECTION("audit", "phase: answer with the label's verbalizer"),
	PHASE_KEYS(TASK_AUDIT, "audit", "train", "validation", "1000", "5e-4"),
	CONFIG_DOUBLE(train_config, phase[TASK_AUDIT].caption_replay, "audit.caption_replay", "0", 0, 0.9, "share of caption samples in every batch, against forgetting"),
	OPTIMIZER_KEYS(train_config, "0.98", "0.05"),
	AUGMENT_KEYS(train_config, "0.7", "1.15", "0.5", "0.2", "0.2"),
	CONFIG_SECTION("eval", "validation"),
	CONFIG_INT64(train_config, eval_every, "eval.every", "0", 0, 1e9, "steps; 0: at every epoch's end"),
	CONFIG_INT64(train_config, eval_limit, "eval.limit", "0", 0, 1e9, "validation samples; 0: all"),
	CONFIG_INT(train_config, eval_batch, "eval.batch", "8", 1, 256, "samples a forward"),
	CONFIG_INT64(train_config, checkpoint_every, "checkpoint_every", "250", 1, 1e9, "steps between resumable checkpoints"),
	CONFIG_DURATION(train_config, log_every_ns, "log_every", "15s", 0.1, 86400, "between progress lines when stderr is not a terminal"),
	CONFIG_SECTION("export", "the finished model"),
	CONFIG_STRING(train_config, export_dir, "export.dir", "", "empty: run_dir/export"),
	CONFIG_ENUM(train_config, export_dtype, "export.dtype", "bf16", DTYPE_NAMES, "stored precision"),
	CONFIG_ENUM(train_config, export_from, "export.from", "best", EXPORT_NAMES, "best validation, or the last step"),
};
/* clang-format on */
const config_schema TRAIN_CONFIG_SCHEMA = CONFIG_SCHEMA(train_config, KEYS);

const char *const TRAIN_FIXED_KEYS[] = {"phases", "labels", "seed", "modalities", NULL};

int train_config_phases(const train_config *c, task tasks[NUM_TASKS])
{
	int n = 0;
	for (size_t i = 0; i < c->phases.count && n < NUM_TASKS; i++)
		for (int t = 0; t < NUM_TASKS; t++)
			if (!strcmp(c->phases.items[i], TASK_NAMES[t]))
				tasks[n++] = (task)t;
	return n;
}

wn_code train_config_stretches(const train_config *c, task t, int64_t steps, wn_error *err)
{
	const phase_config *p = &c->phase[t];
	if (p->vision_first_steps + p->text_first_steps > 0 && p->vision_first_steps + p->text_first_steps >= steps)
		return wn_fail(err, WN_INVALID,
			       "%s: vision_first_steps = %lld and text_first_steps = %lld leave none of its %lld steps for the whole model",
			       TASK_NAMES[t], (long long)p->vision_first_steps, (long long)p->text_first_steps, (long long)steps);
	return WN_OK;
}

static wn_code check_phases(const train_config *c, wn_error *err)
{
	bool seen[NUM_TASKS] = {false};
	for (size_t i = 0; i < c->phases.count; i++) {
		int t = 0;
		while (t < NUM_TASKS && strcmp(c->phases.items[i], TASK_NAMES[t]) != 0)
			t++;
		if (t == NUM_TASKS || seen[t])
			return wn_fail(err, WN_INVALID, "phases: found \"%.40s\"%s, expected caption and audit, each at most once",
				       c->phases.items[i], t == NUM_TASKS ? "" : " twice");
		seen[t] = true;
		const phase_config *p = &c->phase[t];
		if (p->steps == 0 && !(p->epochs > 0))
			return wn_fail(err, WN_INVALID, "%s: steps and epochs are both 0", TASK_NAMES[t]);
		if (p->min_learning_rate > p->learning_rate)
			return wn_fail(err, WN_INVALID, "%s.min_learning_rate: found %g, expected at most learning_rate = %g",
				       TASK_NAMES[t], p->min_learning_rate, p->learning_rate);
		if (p->micro_batch > p->batch_size)
			return wn_fail(err, WN_INVALID, "%s.micro_batch: found %d, expected at most batch_size = %d", TASK_NAMES[t],
				       p->micro_batch, p->batch_size);
		if (p->vision_first_steps && c->modalities == MODALITIES_TEXT)
			return wn_fail(err, WN_INVALID,
				       "%s.vision_first_steps: found %lld, expected 0 with modalities: text (every image is blank)",
				       TASK_NAMES[t], (long long)p->vision_first_steps);
		wn_code rc = p->steps ? train_config_stretches(c, (task)t, p->steps, err) : WN_OK;
		if (rc)
			return rc;
	}
	if (c->phases.count == 0)
		return wn_fail(err, WN_INVALID, "phases: empty, expected caption, audit or both");
	if (!*c->init_from && c->labels.count < 2)
		return wn_fail(err, WN_INVALID, "labels: found %zu, expected at least 2", c->labels.count);
	if (!*c->init_from && !*c->prompt)
		return wn_fail(err, WN_INVALID, "prompt: empty, expected a template with {text}");
	return WN_OK;
}

static wn_code check(const void *config, wn_error *err)
{
	manifest m = {0};
	wn_code rc = check_phases(config, err);
	if (!rc)
		rc = train_config_manifest(config, &m, err);
	manifest_close(&m);
	return rc;
}

wn_code train_config_load(train_config *out, const char *path, const char *const *sets, int num_sets, wn_error *err)
{
	return config_load_with(&TRAIN_CONFIG_SCHEMA, out, path, sets, num_sets, check, err);
}

void train_config_free(train_config *c) { config_free(&TRAIN_CONFIG_SCHEMA, c); }

/* The next field of a line split at '|', without blanks around it. False when there is none. */
static bool next_field(const char **at, char *buf, size_t size, bool *fits)
{
	const char *p = *at;
	if (!p)
		return false;
	const char *bar = strchr(p, '|'), *end = bar ? bar : p + strlen(p);
	*at = bar ? bar + 1 : NULL;
	while (p < end && isspace((unsigned char)*p))
		p++;
	while (end > p && isspace((unsigned char)end[-1]))
		end--;
	*fits = (size_t)(end - p) < size;
	snprintf(buf, size, "%.*s", (int)(*fits ? end - p : 0), p);
	return true;
}

static wn_code parse_share(const char *line, const char *what, const char *s, double *out, wn_error *err)
{
	char *end;
	*out = strtod(s, &end);
	if (end == s || *end || !(*out >= 0 && *out <= 1))
		return wn_fail(err, WN_INVALID, "labels: \"%.80s\": %s: found \"%.20s\", expected 0 to 1", line, what, s);
	return WN_OK;
}

/* name | verbalizer | action [| threshold [| review_threshold]] */
static wn_code parse_label(label_spec *out, const char *line, wn_error *err)
{
	*out = (label_spec){.threshold = 0.5, .review_threshold = 0.2};
	char act[16] = "", number[32] = "";
	const char *at = line;
	bool fits[3] = {true, true, true}, number_fits = true;
	if (!next_field(&at, out->name, sizeof out->name, &fits[0]) ||
	    !next_field(&at, out->verbalizer, sizeof out->verbalizer, &fits[1]) || !next_field(&at, act, sizeof act, &fits[2]))
		return wn_fail(err, WN_INVALID,
			       "labels: \"%.80s\": expected name | verbalizer | action [| threshold [| review_threshold]]", line);
	if (!fits[0] || !fits[1] || !*out->name || !*out->verbalizer)
		return wn_fail(err, WN_INVALID, "labels: \"%.80s\": name or verbalizer is empty or too long", line);
	for (out->action = ACTION_PASS; out->action <= ACTION_BLOCK; out->action++)
		if (!strcmp(act, action_name(out->action)))
			break;
	if (out->action > ACTION_BLOCK)
		return wn_fail(err, WN_INVALID, "labels: \"%.80s\": action: found \"%s\", expected pass, review or block", line, act);
	wn_code rc = WN_OK;
	if (next_field(&at, number, sizeof number, &number_fits))
		rc = parse_share(line, "threshold", number, &out->threshold, err);
	if (!rc && next_field(&at, number, sizeof number, &number_fits))
		rc = parse_share(line, "review_threshold", number, &out->review_threshold, err);
	if (!rc && at)
		rc = wn_fail(err, WN_INVALID, "labels: \"%.80s\": more than five fields", line);
	return rc;
}

wn_code train_config_manifest(const train_config *c, manifest *out, wn_error *err)
{
	if (strlen(c->name) >= sizeof out->name)
		return wn_fail(err, WN_INVALID, "name: longer than %zu bytes", sizeof out->name - 1);
	snprintf(out->name, sizeof out->name, "%s", c->name);
	snprintf(out->precision, sizeof out->precision, "f32");
	out->max_text_tokens = c->max_text_tokens;
	if (c->labels.count > MAX_LABELS)
		return wn_fail(err, WN_INVALID, "labels: found %zu, expected at most %d", c->labels.count, MAX_LABELS);
	for (size_t i = 0; i < c->labels.count; i++) {
		label_spec *l = &out->labels[i];
		wn_code rc = parse_label(l, c->labels.items[i], err);
		if (rc)
			return rc;
		for (size_t k = 0; k < i; k++)
			if (!strcmp(out->labels[k].name, l->name) || !strcmp(out->labels[k].verbalizer, l->verbalizer))
				return wn_fail(err, WN_INVALID, "labels: \"%s\" and \"%s\" share a name or a verbalizer",
					       out->labels[k].name, l->name);
	}
	out->num_labels = (int)c->labels.count;
	out->prompt = strdup(c->prompt);
	return out->prompt ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for the prompt");
}

static wn_code set_stack(stack_config *s, const stack_shape *shape, const char *name, activation a, float eps, wn_error *err)
{
	if (shape->hidden_size % shape->num_attention_heads)
		return wn_fail(err, WN_INVALID, "model.%s.num_attention_heads: found %d, expected a divisor of hidden_size = %d", name,
			       shape->num_attention_heads, shape->hidden_size);
	s->hidden_size = shape->hidden_size;
	s->num_hidden_layers = shape->num_hidden_layers;
	s->layer_norm_eps = eps;
	s->activation = a;
	for (int i = 0; i < shape->num_hidden_layers; i++)
		s->blocks[i] = (block_widths){.num_heads = shape->num_attention_heads,
					      .head_dim = shape->hidden_size / shape->num_attention_heads,
					      .ffn_dim = shape->intermediate_size};
	return WN_OK;
}

wn_code train_config_model(const train_config *c, blip2_config *out, wn_error *err)
{
	*out = (blip2_config){.image_size = c->image_size,
			      .patch_size = c->patch_size,
			      .qkv_bias = true,
			      .num_query_tokens = c->num_query_tokens,
			      .cross_attention_frequency = c->cross_attention_frequency,
			      .vocab_size = c->vocab_size,
			      .max_position_embeddings = c->max_position_embeddings,
			      .bos_token_id = 2,
			      .eos_token_id = 2,
			      .pad_token_id = 1,
			      .initializer_range = 0.02f,
			      .torch_dtype = "float32"};
	if (c->image_size % c->patch_size)
		return wn_fail(err, WN_INVALID, "model.patch_size: found %d, expected a divisor of image_size = %d", c->patch_size,
			       c->image_size);
	/* The epsilons are the defaults of Blip2VisionConfig, Blip2QFormerConfig and torch.nn.LayerNorm (OPT). */
	wn_code rc = set_stack(&out->vision, &c->vision, "vision", ACTIVATION_GELU, 1e-6f, err);
	if (!rc)
		rc = set_stack(&out->qformer, &c->qformer, "qformer", ACTIVATION_GELU, 1e-12f, err);
	if (!rc)
		rc = set_stack(&out->text, &c->text, "text", ACTIVATION_RELU, 1e-5f, err);
	for (int i = 0; !rc && i < c->qformer.num_hidden_layers; i += c->cross_attention_frequency) {
		out->qformer.blocks[i].cross_num_heads = out->qformer.blocks[i].num_heads;
		out->qformer.blocks[i].cross_head_dim = out->qformer.blocks[i].head_dim;
	}
	return rc;
}
