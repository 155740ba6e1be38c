/* tiny_classifier.c: see tiny_classifier.h. */
#include "tiny_classifier.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/checkpoint.h"

static const char CONFIG[] =
	"{\"model_type\":\"blip-2\",\"num_query_tokens\":3,\"vision_config\":{\"hidden_size\":16,\"num_attention_heads\":2,"
	"\"num_hidden_layers\":1,\"intermediate_size\":32,\"image_size\":16,\"patch_size\":8},\"qformer_config\":{"
	"\"hidden_size\":16,\"encoder_hidden_size\":16,\"num_attention_heads\":2,\"num_hidden_layers\":2,"
	"\"intermediate_size\":32},\"text_config\":{\"hidden_size\":16,\"num_attention_heads\":2,\"num_hidden_layers\":1,"
	"\"ffn_dim\":32,\"vocab_size\":300,\"max_position_embeddings\":64,\"word_embed_proj_dim\":16}}";

static wn_code write_tokenizer(const char *path, wn_error *err)
{
	static const char *const texts[] = {"合规 赌博 内容 判定", "poker cards free pass"};
	static const char *const specials[] = {"<s>", "<pad>", "</s>", "<unk>"};
	const bpe_trainer_options opt = {.vocab_size = 280, .special_tokens = specials, .num_special_tokens = 4};
	return bpe_train(path, texts, 2, &opt, err);
}

static wn_code make_manifest(manifest *m, wn_error *err)
{
	*m = (manifest){.name = "tiny", .max_text_tokens = 40, .num_labels = 2, .precision = "f32"};
	m->prompt = strdup("内容：{text} 判定：");
	m->labels[0] = (label_spec){.name = "ok", .verbalizer = "合规", .action = ACTION_PASS, .threshold = 0.5};
	m->labels[1] = (label_spec){.name = "gambling", .verbalizer = "赌博", .action = ACTION_BLOCK, .threshold = 0.5};
	return m->prompt ? WN_OK : wn_fail(err, WN_NOMEM, "out of memory");
}

static wn_code scale(blip2 *m, const tiny_classifier *t, wn_error *err)
{
	const param *p = t->scaled ? blip2_find_param(m, t->scaled) : NULL;
	if (t->scaled && !p)
		return wn_fail(err, WN_NOT_FOUND, "no parameter %s", t->scaled);
	for (size_t i = 0; p && i < p->count; i++)
		blip2_weights(m)[p->offset + i] *= t->factor;
	return WN_OK;
}

wn_code tiny_classifier_write(const char *dir, const tiny_classifier *t, wn_error *err)
{
	char tokenizer_path[600];
	blip2_config *c = malloc(sizeof *c);
	blip2 *m = NULL;
	manifest man = {0};
	image_processor ip;
	wn_code rc = c ? WN_OK : wn_fail(err, WN_NOMEM, "out of memory");
	snprintf(tokenizer_path, sizeof tokenizer_path, "%s.tokenizer.json", dir);
	if (rc || (rc = write_tokenizer(tokenizer_path, err)) || (rc = make_manifest(&man, err)) ||
	    (rc = hf_config_parse(c, CONFIG, strlen(CONFIG), err)) || (rc = image_processor_parse(&ip, "{}", 2, err)) ||
	    (rc = blip2_create(&m, c, err)))
		goto done;
	ip.size = c->image_size;
	blip2_init_weights(m, t->seed);
	rc = scale(m, t, err);
	if (!rc)
		rc = checkpoint_save(dir, m, &man, &ip, tokenizer_path, DTYPE_F32, err);
done:
	unlink(tokenizer_path);
	blip2_close(&m);
	manifest_close(&man);
	free(c);
	return rc;
}
