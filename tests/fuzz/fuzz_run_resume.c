/* What a resumed run reads back (fuzz_files.h's bundle): its manifest, plan, position, what was cut, what was changed on the way. */
#include "fuzz_files.h"
#include "prune/compress/compress_plan.h"
#include "prune/compress/keep_json.h"
#include "prune/compress/teacher_map.h"
#include "prune/run_changes.h"
#include "prune/run_dir.h"
#include "prune/train_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STATE "state/step-000000001"

static const char *const FILES[] = {"manifest.json", "plan.json", "pruning.json", STATE "/state.json", NULL};

static const char CONFIG[] =
	"{\"model_type\":\"blip-2\",\"num_query_tokens\":3,\"vision_config\":{\"hidden_size\":16,\"num_attention_heads\":2,"
	"\"num_hidden_layers\":2,\"intermediate_size\":32,\"image_size\":16,\"patch_size\":8},\"qformer_config\":{"
	"\"hidden_size\":16,\"encoder_hidden_size\":16,\"num_attention_heads\":2,\"num_hidden_layers\":2,"
	"\"intermediate_size\":32},\"text_config\":{\"hidden_size\":16,\"num_attention_heads\":2,\"num_hidden_layers\":2,"
	"\"ffn_dim\":32,\"vocab_size\":300,\"max_position_embeddings\":64,\"word_embed_proj_dim\":16}}";

static blip2_config full;
static compress_config config;
static workspace work;

/* A teacher's shape, and a configuration that is the defaults but for its run directory. */
static void set_up(void)
{
	static const char YAML[] = "run_dir: x\nteacher: x\ndata: {dir: x}\n";
	char path[128];
	wn_error err = {0};
	snprintf(path, sizeof path, "%s/state", fuzz_dir());
	mkdir(path, 0700);
	snprintf(path, sizeof path, "%s/" STATE, fuzz_dir());
	mkdir(path, 0700);
	fuzz_put(STATE "/state.safetensors", (const uint8_t *)"\2\0\0\0\0\0\0\0{}", 10);
	if (hf_config_parse(&full, CONFIG, strlen(CONFIG), &err) != WN_OK || blip2_create(&work.teacher.model, &full, &err) != WN_OK ||
	    config_parse(&COMPRESS_CONFIG_SCHEMA, &config, "config", YAML, sizeof YAML - 1, &err) != WN_OK) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
	free(config.run_dir);
	config.run_dir = strdup(fuzz_dir());
	work.config = &config;
}

static const char *in_dir(const char *name)
{
	static char path[128];
	snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
	return path;
}

static void check(wn_code rc, const wn_error *err)
{
	if (rc != WN_OK && !*err->message)
		abort();
}

static void read_manifest(void)
{
	json_t *document, *changed;
	wn_error err = {0}, other = {0};
	check(run_dir_read_manifest(&document, fuzz_dir(), &err), &err);
	json_decref(document);
	check(run_changes(&changed, &COMPRESS_CONFIG_SCHEMA, &config, fuzz_dir(), COMPRESS_FIXED_KEYS, &other), &other);
	json_decref(changed);
}

/* *shape: of the last iteration, or the teacher's. */
static void read_plan(blip2_config *shape)
{
	static compress_plan p;
	wn_error err = {0};
	*shape = full;
	wn_code rc = access(in_dir("plan.json"), F_OK) == 0 ? compress_plan_make(&p, &work, true, NULL, &err) : WN_NOT_FOUND;
	if (rc == WN_NOT_FOUND)
		return;
	check(rc, &err);
	for (int i = 0; rc == WN_OK && i < p.count; i++) {
		char name[128];
		compress_plan_name(&p, i, name, sizeof name);
		if (!*name)
			abort();
	}
	if (rc == WN_OK)
		*shape = p.iterations[p.count - 1].shape;
}

static void read_pruning(const blip2_config *to)
{
	static keep k;
	teacher_map m;
	wn_error err = {0}, other = {0};
	json_t *j = json_load_file(in_dir("pruning.json"), JSON_REJECT_DUPLICATES, NULL);
	if (!j)
		return;
	const wn_code rc = keep_parse(&k, json_object_get(j, "keep"), &full, to, &err);
	check(rc, &err);
	if (rc == WN_OK) {
		keep_close(&k);
		check(teacher_map_parse(&m, json_object_get(j, "teacher_map"), &full, to, &other), &other);
		teacher_map_close(&m);
	}
	json_decref(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static blip2_config shape;
	train_position position;
	wn_error err = {0};
	if (!config.run_dir)
		set_up();
	fuzz_bundle(data, size, FILES);
	read_manifest();
	read_plan(&shape);
	read_pruning(&shape);
	check(train_state_position(fuzz_dir(), &position, &err), &err);
	return 0;
}
