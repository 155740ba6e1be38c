/* Fails the k-th allocation, for every k until the work succeeds: each failure must be an error with a message, leave nothing
 * behind (the address sanitizer counts) and crash nothing. The allocations are winnow's own and jansson's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../base/temp_dir.h"
#include "base/file.h"
#include "base/yaml_config.h"
#include "failing_calls.h"
#include "model/hf_config.h"
#include "model/manifest.h"
#include "model/safetensors.h"

static const char *golden_dir;

static char path_buffer[1024];

static wn_code open_file(void *cls, wn_error *err)
{
	safetensors *st;
	snprintf(path_buffer, sizeof path_buffer, "%s/dtypes.safetensors", golden_dir);
	wn_code rc = safetensors_open(&st, path_buffer, err);
	safetensors_close(&st);
	return rc;
}

static wn_code open_shards(void *cls, wn_error *err)
{
	safetensors *st;
	snprintf(path_buffer, sizeof path_buffer, "%s/sharded", golden_dir);
	wn_code rc = safetensors_open_dir(&st, path_buffer, err);
	safetensors_close(&st);
	return rc;
}

static wn_code write_file(void *cls, wn_error *err)
{
	const safetensors_entry e[] = {{"a", {DTYPE_I8, 1, {3}, "abc"}}, {"b", {DTYPE_F32, 2, {0, 2}, NULL}}};
	return safetensors_write(temp_path("w.safetensors"), e, 2, err);
}

static wn_code read_config(void *cls, wn_error *err)
{
	static blip2_config c;
	snprintf(path_buffer, sizeof path_buffer, "%s/config/saved.json", golden_dir);
	wn_code rc = hf_config_read(&c, path_buffer, err);
	if (rc != WN_OK)
		return rc;
	char *text = hf_config_write(&c);
	if (!text)
		return wn_fail(err, WN_NOMEM, "no text");
	free(text);
	return WN_OK;
}

static wn_code read_and_write_manifest(void *cls, wn_error *err)
{
	static const char text[] =
		"{\"format\":1,\"name\":\"m\",\"prompt\":\"{text}\",\"labels\":[{\"name\":\"a\",\"verbalizer\":\"x\",\"action\":\"pass\"},"
		"{\"name\":\"b\",\"verbalizer\":\"y\",\"action\":\"block\"}],\"lineage\":{\"k\":[1,2,{\"z\":null}]}}";
	static blip2_config c;
	static const char config[] = "{\"model_type\":\"blip-2\"}";
	manifest m;
	wn_code rc = manifest_parse(&m, text, strlen(text), err);
	if (rc == WN_OK && (rc = hf_config_parse(&c, config, strlen(config), err)) == WN_OK) {
		c.text.blocks[0].ffn_dim = 5;
		if ((rc = manifest_set_widths(&m, &c, err)) == WN_OK && (rc = manifest_apply_widths(&m, &c, err)) == WN_OK &&
		    (rc = manifest_digest_files(&m, temp_dir, err)) == WN_OK && (rc = manifest_verify(&m, temp_dir, err)) == WN_OK)
			rc = manifest_write(&m, temp_path("winnow.json"), err);
	}
	manifest_close(&m);
	return rc;
}

typedef struct sample {
	char *a;
	string_list l;
} sample;

static wn_code read_yaml(void *cls, wn_error *err)
{
	static const config_key keys[] = {
		CONFIG_STRING(sample, a, "s.a", "x", "a string"),
		CONFIG_STRING_LIST(sample, l, "l", "[a, b]", "a list"),
	};
	static const config_schema schema = CONFIG_SCHEMA(sample, keys);
	static const char text[] = "s:\n  a: y\nl: [1,2,3,4,5,6,7,8,9]\n";
	sample c;
	wn_code rc = config_parse(&schema, &c, "y", text, strlen(text), err);
	if (rc == WN_OK && (rc = config_set(&schema, &c, "s.a=z", err)) == WN_OK)
		rc = config_set(&schema, &c, "l=[q]", err);
	config_free(&schema, &c);
	return rc;
}

static void safetensors_survive_every_failed_allocation(void **state)
{
	assert_true(every_failure(CALLS_OWN, open_file, NULL, NULL) >= 4); /* the wrapping works */
	assert_true(every_failure(CALLS_OWN, open_shards, NULL, NULL) >= 9);
	assert_true(every_failure(CALLS_OWN, write_file, NULL, NULL) >= 2);
	assert_true(every_failure(CALLS_JANSSON, open_file, NULL, NULL) >= 50);
	assert_true(every_failure(CALLS_JANSSON, open_shards, NULL, NULL) >= 50);
	assert_true(every_failure(CALLS_JANSSON, write_file, NULL, NULL) >= 1);
	assert_int_equal(temp_dir_entries(), 1); /* w.safetensors and no temporary */
}

static void configurations_survive_every_failed_allocation(void **state)
{
	assert_true(every_failure(CALLS_OWN, read_config, NULL, NULL) >= 1);
	assert_true(every_failure(CALLS_OWN, read_and_write_manifest, NULL, NULL) >= 5);
	assert_true(every_failure(CALLS_JANSSON, read_config, NULL, NULL) >= 50);
	assert_true(every_failure(CALLS_JANSSON, read_and_write_manifest, NULL, NULL) >= 50);
	assert_true(every_failure(CALLS_OWN, read_yaml, NULL, NULL) >= 15);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(safetensors_survive_every_failed_allocation),
		cmocka_unit_test(configurations_survive_every_failed_allocation),
	};
	golden_dir = argv[argc - 1];
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
