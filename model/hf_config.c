/* hf_config.c: see hf_config.h.
 *
 * Parsing goes through a `section` that keeps the first failure: every getter returns something harmless after it, so that
 * the key lists below read like the Python classes they mirror. Stateless; any thread. */
#include "model/hf_config.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_text.h"
#include "model/json_check.h"
#include "model/shape.h"

#define MAX_FILE ((size_t)4 << 20)
#define MAX_VOCAB (1 << 22)
#define MAX_POSITIONS (1 << 20)
#define MAX_QUERIES 4096
#define MAX_PATCHES 65536
#define OPT_LAYER_NORM_EPS 1e-5f /* not a key: OPT builds nn.LayerNorm with PyTorch's default */

typedef struct section {
	const json_t *object; /* NULL: absent, every key takes its default */
	const char *name;     /* "text_config." or "" */
	wn_error *err;
	wn_code rc;
} section;

static void bad(section *s, wn_code code, const char *key, const char *found, const char *expected, ...)
{
	char buf[200];
	va_list ap;
	va_start(ap, expected);
	vsnprintf(buf, sizeof buf, expected, ap);
	va_end(ap);
	if (s->rc == WN_OK)
		s->rc = wn_fail(s->err, code, "%s%s: found %s, expected %s", s->name, key, found, buf);
}

static const json_t *get(const section *s, const char *key)
{
	return s->rc == WN_OK ? json_object_get(s->object, key) : NULL;
}

static int get_int(section *s, const char *key, int fallback, int min, int max)
{
	char buf[64];
	const json_t *v = get(s, key);
	if (!v)
		return fallback;
	if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max) {
		bad(s, json_is_integer(v) && json_integer_value(v) > max ? WN_TOO_LARGE : WN_INVALID, key, json_show(buf, v),
		    "an integer from %d to %d", min, max);
		return fallback;
	}
	return (int)json_integer_value(v);
}

/* A token id, null, or (as newer files have it) a list of one; -1 stands for null. */
static int get_token(section *s, const char *key, int fallback, int max)
{
	char buf[64];
	const json_t *v = get(s, key);
	if (!v)
		return fallback;
	if (json_is_null(v))
		return -1;
	if (json_is_array(v) && json_array_size(v) == 1)
		v = json_array_get(v, 0);
	if (json_is_array(v) && json_array_size(v) > 1) {
		bad(s, WN_UNSUPPORTED, key, "a list", "one token id");
		return fallback;
	}
	if (!json_is_integer(v) || json_integer_value(v) < -1 || json_integer_value(v) > max) {
		bad(s, WN_INVALID, key, json_show(buf, v), "a token id from 0 to %d or null", max);
		return fallback;
	}
	return (int)json_integer_value(v);
}

static float get_float(section *s, const char *key, double fallback, double max)
{
	char buf[64];
	const json_t *v = get(s, key);
	if (!v)
		return (float)fallback;
	double d = json_number_value(v);
	if (!json_is_number(v) || !(d >= 0 && d <= max)) {
		bad(s, WN_INVALID, key, json_show(buf, v), "a number from 0 to %g", max);
		return (float)fallback;
	}
	return (float)d;
}

static bool get_bool(section *s, const char *key, bool fallback)
{
	char buf[64];
	const json_t *v = get(s, key);
	if (!v)
		return fallback;
	if (!json_is_boolean(v)) {
		bad(s, WN_INVALID, key, json_show(buf, v), "true or false");
		return fallback;
	}
	return json_is_true(v);
}

/* A switch that winnow runs in one position only (its default). */
static void require_bool(section *s, const char *key, bool only)
{
	if (get_bool(s, key, only) != only)
		bad(s, WN_UNSUPPORTED, key, only ? "false" : "true", only ? "true" : "false");
}

/* A name that winnow runs with one value only; absent is right when the class default is that value. */
static void require_string(section *s, const char *key, const char *only)
{
	char buf[64];
	const json_t *v = get(s, key);
	if (v && (!json_is_string(v) || strcmp(json_string_value(v), only) != 0))
		bad(s, json_is_string(v) ? WN_UNSUPPORTED : WN_INVALID, key, json_show(buf, v), "\"%s\"", only);
}

/* ACT2FN["gelu"] is the erf form; its approximations are other names and other numbers. */
static activation get_activation(section *s, const char *key, activation fallback)
{
	char buf[64];
	const json_t *v = get(s, key);
	if (!v)
		return fallback;
	const char *name = json_string_value(v);
	if (name && strcmp(name, "gelu") == 0)
		return ACTIVATION_GELU;
	if (name && strcmp(name, "relu") == 0)
		return ACTIVATION_RELU;
	bad(s, name ? WN_UNSUPPORTED : WN_INVALID, key, json_show(buf, v), "\"gelu\" or \"relu\"");
	return fallback;
}

static section open_section(section *top, const char *key, const char *name)
{
	char buf[64];
	const json_t *v = get(top, key);
	section s = {.name = name, .err = top->err, .rc = top->rc};
	if (v && !json_is_null(v)) {
		if (!json_is_object(v))
			bad(top, WN_INVALID, key, json_show(buf, v), "an object");
		s.object = v;
		s.rc = top->rc;
	}
	/* Weights stored by a quantiser are not the tensors the class declares. */
	const json_t *q = get(&s, "quantization_config");
	if (q && !json_is_null(q))
		bad(&s, WN_UNSUPPORTED, "quantization_config", "an object", "no quantisation");
	return s;
}

/* hidden_size, num_hidden_layers, num_attention_heads and the FFN width: the same four in all three stacks. */
static void get_stack(section *s, stack_config *out, int hidden, int layers, int heads, const char *ffn_key, int ffn)
{
	char buf[64];
	out->hidden_size = get_int(s, "hidden_size", hidden, 1, MAX_HIDDEN);
	out->num_hidden_layers = get_int(s, "num_hidden_layers", layers, 1, MAX_BLOCKS);
	heads = get_int(s, "num_attention_heads", heads, 1, MAX_HIDDEN);
	ffn = get_int(s, ffn_key, ffn, 1, MAX_HIDDEN);
	if (s->rc == WN_OK && out->hidden_size % heads != 0) {
		snprintf(buf, sizeof buf, "%d", heads);
		bad(s, WN_INVALID, "num_attention_heads", buf, "a divisor of hidden_size %d", out->hidden_size);
	}
	for (int i = 0; i < out->num_hidden_layers; i++)
		out->blocks[i] = (block_widths){.num_heads = heads, .head_dim = out->hidden_size / heads, .ffn_dim = ffn};
}

static void get_vision(section *s, blip2_config *c)
{
	char buf[64];
	require_string(s, "model_type", "blip_2_vision_model");
	get_stack(s, &c->vision, 1408, 39, 16, "intermediate_size", 6144);
	c->vision.activation = get_activation(s, "hidden_act", ACTIVATION_GELU);
	c->vision.layer_norm_eps = get_float(s, "layer_norm_eps", 1e-6, 1);
	c->qkv_bias = get_bool(s, "qkv_bias", true);
	c->image_size = get_int(s, "image_size", 224, 1, 16384);
	c->patch_size = get_int(s, "patch_size", 14, 1, 16384);
	if (get_int(s, "num_channels", 3, 0, 1 << 20) != 3) /* older files only */
		bad(s, WN_UNSUPPORTED, "num_channels", json_show(buf, get(s, "num_channels")), "3");
	if (s->rc != WN_OK)
		return;
	snprintf(buf, sizeof buf, "%d", c->patch_size);
	int side = c->image_size / c->patch_size;
	if (c->image_size % c->patch_size != 0)
		bad(s, WN_UNSUPPORTED, "patch_size", buf, "a divisor of image_size %d", c->image_size);
	else if (side * side > MAX_PATCHES)
		bad(s, WN_TOO_LARGE, "patch_size", buf, "at most %d patches of an image of %d", MAX_PATCHES, c->image_size);
}

static void get_qformer(section *s, blip2_config *c)
{
	require_string(s, "model_type", "blip_2_qformer");
	/* encoder_hidden_size is not read: Blip2Config overwrites it with the vision hidden_size. */
	get_stack(s, &c->qformer, 768, 12, 12, "intermediate_size", 3072);
	c->qformer.activation = get_activation(s, "hidden_act", ACTIVATION_GELU);
	c->qformer.layer_norm_eps = get_float(s, "layer_norm_eps", 1e-12, 1);
	c->cross_attention_frequency = get_int(s, "cross_attention_frequency", 2, 1, 1 << 20);
	require_bool(s, "use_qformer_text_input", false);
	require_string(s, "position_embedding_type", "absolute"); /* older files only */
	for (int i = 0; i < c->qformer.num_hidden_layers; i += c->cross_attention_frequency) {
		block_widths *b = &c->qformer.blocks[i];
		b->cross_num_heads = b->num_heads;
		b->cross_head_dim = b->head_dim;
	}
}

static void get_text(section *s, blip2_config *c)
{
	char buf[64];
	require_string(s, "model_type", "opt");
	get_stack(s, &c->text, 768, 12, 12, "ffn_dim", 3072);
	c->text.activation = get_activation(s, "activation_function", ACTIVATION_RELU);
	c->text.layer_norm_eps = OPT_LAYER_NORM_EPS;
	c->vocab_size = get_int(s, "vocab_size", 50272, 1, MAX_VOCAB);
	c->max_position_embeddings = get_int(s, "max_position_embeddings", 2048, 1, MAX_POSITIONS);
	c->pad_token_id = get_token(s, "pad_token_id", 1, MAX_VOCAB);
	c->bos_token_id = get_token(s, "bos_token_id", 2, MAX_VOCAB);
	c->eos_token_id = get_token(s, "eos_token_id", 2, MAX_VOCAB);
	if (c->pad_token_id >= c->vocab_size) { /* nn.Embedding's padding_idx refuses it too; bos and eos are only numbers */
		snprintf(buf, sizeof buf, "%d", c->pad_token_id);
		bad(s, WN_INVALID, "pad_token_id", buf, "an id below vocab_size %d", c->vocab_size);
	}
	require_bool(s, "do_layer_norm_before", true);
	require_bool(s, "_remove_final_layer_norm", false);
	require_bool(s, "enable_bias", true);
	require_bool(s, "layer_norm_elementwise_affine", true);
	require_bool(s, "tie_word_embeddings", true);
	const json_t *proj = get(s, "word_embed_proj_dim");
	if (proj && !json_is_null(proj) &&
	    (!json_is_integer(proj) || json_integer_value(proj) != c->text.hidden_size))
		bad(s, WN_UNSUPPORTED, "word_embed_proj_dim", json_show(buf, proj), "hidden_size %d", c->text.hidden_size);
}

/* "dtype" (transformers 5), "torch_dtype" (4); dtype wins as in PreTrainedConfig. Kept only to be written back. */
static void get_dtype(section *s, char out[16])
{
	char buf[64];
	const char *key = "dtype";
	const json_t *v = get(s, key);
	out[0] = '\0';
	if (!v || json_is_null(v))
		v = get(s, key = "torch_dtype");
	if (json_is_object(v)) /* one per sub-model, "" for the rest */
		v = json_object_get(v, "");
	if (!v || json_is_null(v))
		return;
	const char *name = json_string_value(v);
	if (name && strncmp(name, "torch.", 6) == 0)
		name += 6;
	if (!name || !*name || strlen(name) > 15 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(name))
		bad(s, WN_INVALID, key, json_show(buf, v), "a dtype such as \"float32\"");
	else
		strcpy(out, name);
}

wn_code hf_config_parse(blip2_config *out, const char *json, size_t len, wn_error *err)
{
	char buf[64];
	json_error_t je;
	memset(out, 0, sizeof *out);
	json_t *root = json_read(json, len, JSON_REJECT_DUPLICATES, &je);
	if (!root)
		return wn_fail(err, json_read_code(&je),
		               "line %d column %d: %s", je.line, je.column, je.text);
	section top = {.object = root, .name = "", .err = err};
	if (!json_is_object(root))
		bad(&top, WN_INVALID, "config", json_show(buf, root), "an object");
	else if (!json_object_get(root, "model_type"))
		bad(&top, WN_INVALID, "model_type", "nothing", "\"blip-2\"");
	require_string(&top, "model_type", "blip-2");
	const json_t *q = get(&top, "quantization_config");
	if (q && !json_is_null(q))
		bad(&top, WN_UNSUPPORTED, "quantization_config", "an object", "no quantisation");
	out->num_query_tokens = get_int(&top, "num_query_tokens", 32, 1, MAX_QUERIES);
	out->initializer_range = get_float(&top, "initializer_range", 0.02, 10);
	/* Both spellings are in circulation (attribute_map of Blip2Config). */
	out->image_token_index = get_token(&top, json_object_get(root, "image_token_id") ? "image_token_id" : "image_token_index",
	                                   -1, MAX_VOCAB);
	get_dtype(&top, out->torch_dtype);

	section s = open_section(&top, "vision_config", "vision_config.");
	get_vision(&s, out);
	top.rc = s.rc;
	s = open_section(&top, "qformer_config", "qformer_config.");
	get_qformer(&s, out);
	top.rc = s.rc;
	s = open_section(&top, "text_config", "text_config.");
	get_text(&s, out);
	json_decref(root);
	if (s.rc != WN_OK)
		memset(out, 0, sizeof *out);
	return s.rc;
}

wn_code hf_config_read(blip2_config *out, const char *path, wn_error *err)
{
	char *text;
	size_t len;
	memset(out, 0, sizeof *out);
	wn_code rc = file_read(path, MAX_FILE, &text, &len, err);
	if (rc != WN_OK)
		return rc;
	rc = hf_config_parse(out, text, len, err);
	free(text);
	if (rc != WN_OK)
		wn_fail_prefix(err, "%s", path);
	return rc;
}

/* ---- writing ---- */

static bool frequency_fits(const stack_config *q, int frequency)
{
	for (int i = 0; i < q->num_hidden_layers; i++)
		if ((q->blocks[i].cross_num_heads > 0) != (i % frequency == 0))
			return false;
	return true;
}

int hf_config_cross_frequency(const blip2_config *c)
{
	if (c->cross_attention_frequency >= 1 && frequency_fits(&c->qformer, c->cross_attention_frequency))
		return c->cross_attention_frequency;
	for (int f = 1; f <= c->qformer.num_hidden_layers; f++)
		if (frequency_fits(&c->qformer, f))
			return f;
	return 0;
}

/* config.json has one set of widths a stack, with heads that make up the hidden width, in cross-attention too. */
static bool stack_is_uniform(const stack_config *s)
{
	block_widths w;
	return shape_common_widths(&w, s) && (int64_t)w.num_heads * w.head_dim == s->hidden_size &&
	       (!w.cross_num_heads || (w.cross_num_heads == w.num_heads && w.cross_head_dim == w.head_dim));
}

bool hf_config_is_uniform(const blip2_config *c)
{
	return stack_is_uniform(&c->vision) && stack_is_uniform(&c->qformer) && stack_is_uniform(&c->text) &&
	       hf_config_cross_frequency(c) > 0;
}

/* Largest head count up to the first block's that divides hidden_size: its own in a uniform stack. */
static int writable_heads(const stack_config *s)
{
	int heads = s->num_hidden_layers > 0 ? s->blocks[0].num_heads : 1;
	if (heads > s->hidden_size)
		heads = s->hidden_size;
	while (heads > 1 && s->hidden_size % heads != 0)
		heads--;
	return heads;
}

static int writable_ffn(const stack_config *s)
{
	int widest = 1;
	for (int i = 0; i < s->num_hidden_layers; i++)
		if (s->blocks[i].ffn_dim > widest)
			widest = s->blocks[i].ffn_dim;
	return widest;
}

static const char *activation_key(activation a)
{
	return a == ACTIVATION_RELU ? "relu" : "gelu";
}

/* The decimal a person would have written: 1e-06, not 9.99999997e-07. */
static double shortest(float f)
{
	char buf[32];
	for (int digits = 1; digits <= 9; digits++) {
		snprintf(buf, sizeof buf, "%.*g", digits, (double)f);
		if (strtof(buf, NULL) == f)
			break;
	}
	return strtod(buf, NULL);
}

static json_t *token(int id)
{
	return id < 0 ? json_null() : json_integer(id);
}

static json_t *write_vision(const blip2_config *c)
{
	const stack_config *s = &c->vision;
	return json_pack("{s:f, s:s, s:i, s:i, s:f, s:i, s:f, s:s, s:i, s:i, s:i, s:b}", "attention_dropout", 0.0,
	                 "hidden_act", activation_key(s->activation), "hidden_size", s->hidden_size, "image_size",
	                 c->image_size, "initializer_range", 1e-10, "intermediate_size", writable_ffn(s), "layer_norm_eps",
	                 shortest(s->layer_norm_eps), "model_type", "blip_2_vision_model", "num_attention_heads",
	                 writable_heads(s), "num_hidden_layers", s->num_hidden_layers, "patch_size", c->patch_size,
	                 "qkv_bias", c->qkv_bias);
}

static json_t *write_qformer(const blip2_config *c)
{
	const stack_config *s = &c->qformer;
	int frequency = hf_config_cross_frequency(c);
	return json_pack("{s:f, s:i, s:i, s:s, s:f, s:i, s:f, s:i, s:f, s:i, s:s, s:i, s:i, s:i, s:b, s:i}",
	                 "attention_probs_dropout_prob", 0.1, "cross_attention_frequency",
	                 frequency > 0                       ? frequency
	                 : c->cross_attention_frequency >= 1 ? c->cross_attention_frequency
	                                                     : 1,
	                 "encoder_hidden_size", c->vision.hidden_size, "hidden_act", activation_key(s->activation),
	                 "hidden_dropout_prob", 0.1, "hidden_size", s->hidden_size, "initializer_range", 0.02,
	                 "intermediate_size", writable_ffn(s), "layer_norm_eps", shortest(s->layer_norm_eps),
	                 "max_position_embeddings", 512, "model_type", "blip_2_qformer", "num_attention_heads",
	                 writable_heads(s), "num_hidden_layers", s->num_hidden_layers, "pad_token_id", 0,
	                 "use_qformer_text_input", 0, "vocab_size", 30522);
}

static json_t *write_text(const blip2_config *c)
{
	const stack_config *s = &c->text;
	json_t *v = json_pack("{s:b, s:s, s:f, s:o, s:b, s:f, s:b, s:o, s:i, s:i, s:f, s:b}", "_remove_final_layer_norm", 0,
	                      "activation_function", activation_key(s->activation), "attention_dropout", 0.0, "bos_token_id",
	                      token(c->bos_token_id), "do_layer_norm_before", 1, "dropout", 0.1, "enable_bias", 1,
	                      "eos_token_id", token(c->eos_token_id), "ffn_dim", writable_ffn(s), "hidden_size",
	                      s->hidden_size, "init_std", 0.02, "layer_norm_elementwise_affine", 1);
	json_t *rest = json_pack("{s:f, s:i, s:s, s:i, s:i, s:o, s:b, s:b, s:i, s:i}", "layerdrop", 0.0,
	                         "max_position_embeddings", c->max_position_embeddings, "model_type", "opt",
	                         "num_attention_heads", writable_heads(s), "num_hidden_layers", s->num_hidden_layers,
	                         "pad_token_id", token(c->pad_token_id), "tie_word_embeddings", 1, "use_cache", 1,
	                         "vocab_size", c->vocab_size, "word_embed_proj_dim", s->hidden_size);
	if (!v || !rest || json_object_update(v, rest) != 0) {
		json_decref(v);
		v = NULL;
	}
	json_decref(rest);
	return v;
}

char *hf_config_write(const blip2_config *c)
{
	json_t *vision = write_vision(c), *qformer = write_qformer(c), *text = write_text(c), *root = NULL;
	char *body = NULL, *out = NULL;
	if (!vision || !qformer || !text)
		goto out;
	/* "torch_dtype": every transformers version reads it; "dtype" only those since 4.56. */
	root = json_pack("{s:[s], s:i, s:o, s:f, s:f, s:s, s:i, s:O, s:O, s:s, s:b, s:O}", "architectures",
	                 "Blip2ForConditionalGeneration", "image_text_hidden_size", 256, "image_token_index",
	                 token(c->image_token_index), "initializer_factor", 1.0, "initializer_range",
	                 shortest(c->initializer_range), "model_type", "blip-2", "num_query_tokens", c->num_query_tokens,
	                 "qformer_config", qformer, "text_config", text, "torch_dtype",
	                 c->torch_dtype[0] ? c->torch_dtype : "float32", "use_decoder_only_language_model", 1,
	                 "vision_config", vision);
	body = root ? json_write(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
	if (body && asprintf(&out, "%s\n", body) < 0)
		out = NULL;
out:
	free(body);
	json_decref(root);
	json_decref(vision);
	json_decref(qformer);
	json_decref(text);
	return out;
}
