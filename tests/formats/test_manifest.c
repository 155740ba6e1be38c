/* winnow.json: exact refusals, round trips, the widths overlay, and digests that notice one changed bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../base/temp_dir.h"
#include "model/manifest.h"

#define L1 "{\"name\":\"ok\",\"verbalizer\":\"合规\",\"action\":\"pass\"}"
#define L2 "{\"name\":\"gambling\",\"verbalizer\":\"赌博\",\"action\":\"block\",\"threshold\":0.6,\"review_threshold\":0.25}"
#define HEAD "{\"format\":1,\"name\":\"ad-audit\""
#define FULL                                                                                                                   \
	HEAD ",\"prompt\":\"内容：{text} 补充：{assist} {} { x} 判定：\",\"max_text_tokens\":64,\"labels\":[" L1 "," L2 "],"            \
	     "\"precision\":\"bf16\",\"lineage\":{\"stage\":\"ffn\",\"seeds\":[1,2],\"loss\":0.1},\"quantization\":{\"scales\":[1]}," \
	     "\"self_test\":{\"text\":\"x\"},\"files\":{\"a\":\"sha256:" ZEROS "\"}}"
#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"

static void expect_full(const manifest *m)
{
	assert_string_equal(m->name, "ad-audit");
	assert_string_equal(m->prompt, "内容：{text} 补充：{assist} {} { x} 判定：");
	assert_int_equal(m->max_text_tokens, 64);
	assert_int_equal(m->num_labels, 2);
	assert_string_equal(m->labels[0].verbalizer, "合规");
	assert_int_equal(m->labels[0].action, ACTION_PASS);
	assert_true(m->labels[0].threshold == 0.5);
	assert_true(m->labels[0].review_threshold == 0.2);
	assert_string_equal(m->labels[1].name, "gambling");
	assert_int_equal(m->labels[1].action, ACTION_BLOCK);
	assert_true(m->labels[1].threshold == 0.6);
	assert_true(m->labels[1].review_threshold == 0.25);
	assert_string_equal(m->precision, "bf16");
	assert_true(json_real_value(json_object_get(m->lineage, "loss")) == 0.1);
	assert_int_equal(json_array_size(json_object_get(m->quantization, "scales")), 1);
	assert_string_equal(json_string_value(json_object_get(m->self_test, "text")), "x");
	assert_string_equal(json_string_value(json_object_get(m->files, "a")), "sha256:" ZEROS);
	assert_null(m->widths);
}

static void a_full_manifest_survives_a_round_trip(void **state)
{
	manifest m, again;
	wn_error err = {0};
	if (manifest_parse(&m, FULL, strlen(FULL), &err) != WN_OK)
		fail_msg("%s", err.message);
	expect_full(&m);
	const char *path = temp_path("winnow.json");
	if (manifest_write(&m, path, &err) != WN_OK || manifest_read(&again, path, &err) != WN_OK)
		fail_msg("%s", err.message);
	expect_full(&again);
	manifest_close(&m);
	manifest_close(&again);
	assert_null(again.prompt);
	assert_string_equal(action_name(ACTION_REVIEW), "review");
}

static void a_model_that_is_no_classifier_yet_needs_only_a_name(void **state)
{
	manifest m;
	wn_error err = {0};
	assert_int_equal(manifest_parse(&m, HEAD "}", strlen(HEAD "}"), &err), WN_OK);
	assert_null(m.prompt);
	assert_int_equal(m.num_labels, 0);
	assert_int_equal(m.max_text_tokens, 96);
	assert_string_equal(m.precision, "f32");
	assert_int_equal(manifest_write(&m, temp_path("plain.json"), &err), WN_OK);
	assert_int_equal(manifest_verify(&m, temp_dir, &err), WN_OK);
	manifest_close(&m);
	assert_int_equal(manifest_read(&m, temp_path("absent.json"), &err), WN_NOT_FOUND);
}

#define LABELS(...) HEAD ",\"prompt\":\"{text}\",\"labels\":[" __VA_ARGS__ "]}"
#define PROMPT(text) HEAD ",\"prompt\":\"" text "\",\"labels\":[" L1 "," L2 "]}"
#define X32 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
/* A name becomes a directory's, and a part of a URL. */
static void names_that_are_paths_are_refused(void **state)
{
	static const char *const bad[] = {"", ".", "..", ".hidden", "a/b", "../x", "a b", "a\n", "\xe4\xbb\x8a", X32 X32 "x"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(manifest_name_is_valid(bad[i]));
	assert_true(manifest_name_is_valid("ad-audit_1.2"));
	assert_true(manifest_name_is_valid(X32 X32));
}

static void refusals_name_the_key(void **state)
{
	static const struct {
		const char *json, *message;
	} bad[] = {
		{"", "line 1 column 0: '[' or '{' expected near end of file"},
		{"[]", "found an array, expected an object"},
		{"{}", "format: found nothing, expected 1"},
		{"{\"format\":\"1\"}", "format: found \"1\", expected 1"},
		{"{\"format\":1}", "name: found nothing, expected 1 to 64 of A-Z a-z 0-9 _ . -, not starting with a dot"},
		{"{\"format\":1,\"name\":\"../x\"}",
	         "name: found \"../x\", expected 1 to 64 of A-Z a-z 0-9 _ . -, not starting with a dot"},
		{"{\"format\":1,\"name\":\"" X32 X32 "x\"}",
	         "name: found a long string, expected 1 to 64 of A-Z a-z 0-9 _ . -, not starting with a dot"},
		{HEAD ",\"name\":\"b\"}", "line 1 column 36: duplicate object key near '\"name\"'"},
		{HEAD ",\"promt\":\"x\"}",
	         "promt: found an unknown key, expected format, name, prompt, max_text_tokens, labels, widths, precision, lineage, "
	         "quantization, self_test, files"},
		{HEAD ",\"max_text_tokens\":0}", "max_text_tokens: found 0, expected an integer from 1 to 8192"},
		{HEAD ",\"max_text_tokens\":8193}", "max_text_tokens: found 8193, expected an integer from 1 to 8192"},
		{HEAD ",\"precision\":\"fp8\"}", "precision: found \"fp8\", expected \"f32\", \"bf16\" or \"int8\""},
		{HEAD ",\"precision\":8}", "precision: found 8, expected \"f32\", \"bf16\" or \"int8\""},
		{HEAD ",\"widths\":[]}", "widths: found [], expected an object"},
		{HEAD ",\"widths\":{\"visoin\":[]}}", "widths.visoin: found an unknown key, expected vision, qformer, text"},
		{HEAD ",\"quantization\":1}", "quantization: found 1, expected an object"},
		{HEAD ",\"files\":{\"a\":\"md5:0\"}}", "files.a: found \"md5:0\", expected \"sha256:\" and 64 hex digits"},
		{HEAD ",\"files\":{\"../a\":\"sha256:" ZEROS "\"}}",
	         "files: found the name \"../a\", expected a plain file name"},
		{HEAD ",\"files\":{\".a\":\"sha256:" ZEROS "\"}}", "files: found the name \".a\", expected a plain file name"},
		{HEAD ",\"files\":{\"winnow.json\":\"sha256:" ZEROS "\"}}",
	         "files: found the name \"winnow.json\", expected a plain file name"},
		{HEAD ",\"labels\":[" L1 "," L2 "]}",
	         "prompt: found nothing, expected a text with {text}, because there are labels"},
		{PROMPT("no place"), "prompt: found {text} 0 times, expected once"},
		{PROMPT("{text} {text}"), "prompt: found {text} 2 times, expected once"},
		{PROMPT("{text}{assist}{assist}"), "prompt: found {assist} 2 times, expected at most once"},
		{PROMPT("{text} {txt}"), "prompt: found the placeholder {txt}, expected {text} and {assist} only"},
		{LABELS(L1), "labels: found [{\"name\":\"ok\",\"verbalizer\":\"合规\",\"action\":\"pass\"}], expected an array of 2 to 64 labels"},
		{LABELS("1,2"), "labels[0]: found 1, expected an object"},
		{LABELS(L1 "," L1), "labels[1].name: found \"ok\", expected another one than labels[0] has"},
		{LABELS(L1 ",{\"name\":\"b\",\"verbalizer\":\"合规\",\"action\":\"pass\"}"),
	         "labels[1].verbalizer: found \"合规\", expected another one than labels[0] has"},
		{LABELS(L1 ",{\"verbalizer\":\"b\",\"action\":\"pass\"}"),
	         "labels[1].name: found nothing, expected 1 to 63 of A-Z a-z 0-9 _ . -"},
		{LABELS(L1 ",{\"name\":\"a b\",\"verbalizer\":\"b\",\"action\":\"pass\"}"),
	         "labels[1].name: found \"a b\", expected 1 to 63 of A-Z a-z 0-9 _ . -"},
		{LABELS(L1 ",{\"name\":\"" X32 X32 "\",\"verbalizer\":\"b\",\"action\":\"pass\"}"),
	         "labels[1].name: found a long string, expected 1 to 63 of A-Z a-z 0-9 _ . -"},
		{LABELS(L1 ",{\"name\":\"b\",\"verbalizer\":\"\",\"action\":\"pass\"}"),
	         "labels[1].verbalizer: found \"\", expected a text of 1 to 127 bytes without control characters"},
		{LABELS(L1 ",{\"name\":\"b\",\"verbalizer\":\"" X32 X32 X32 X32 "\",\"action\":\"pass\"}"),
	         "labels[1].verbalizer: found a long string, expected a text of 1 to 127 bytes without control characters"},
		{LABELS(L1 ",{\"name\":\"b\",\"verbalizer\":\"b\\n\",\"action\":\"pass\"}"),
	         "labels[1].verbalizer: found \"b\\n\", expected a text of 1 to 127 bytes without control characters"},
		{LABELS(L1 ",{\"name\":\"b\",\"verbalizer\":\"b\",\"action\":\"deny\"}"),
	         "labels[1].action: found \"deny\", expected \"pass\", \"review\" or \"block\""},
		{LABELS(L1 ",{\"name\":\"b\",\"verbalizer\":\"b\"}"),
	         "labels[1].action: found nothing, expected \"pass\", \"review\" or \"block\""},
		{LABELS(L1 ",{\"name\":\"b\",\"verbalizer\":\"b\",\"action\":\"pass\",\"threshold\":1.5}"),
	         "labels[1].threshold: found 1.5, expected a probability from 0 to 1"},
		{LABELS(L1 ",{\"name\":\"b\",\"verbalizer\":\"b\",\"action\":\"pass\",\"review_threshold\":\"0.5\"}"),
	         "labels[1].review_threshold: found \"0.5\", expected a probability from 0 to 1"},
		{LABELS(L1 ",{\"name\":\"b\",\"verbalizer\":\"b\",\"action\":\"pass\",\"treshold\":0.5}"),
	         "labels[1].treshold: found an unknown key, expected name, verbalizer, action, threshold, review_threshold"},
	};
	int wrong = 0;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		manifest m;
		wn_error err = {0};
		wn_code rc = manifest_parse(&m, bad[i].json, strlen(bad[i].json), &err);
		if (rc != WN_INVALID || strcmp(err.message, bad[i].message) != 0) {
			print_error("%s\n  found    %d %s\n  expected %s\n", bad[i].json, rc, err.message, bad[i].message);
			wrong++;
		}
		assert_null(m.prompt); /* cleared: nothing to close */
	}
	assert_int_equal(wrong, 0);
	manifest m;
	wn_error err = {0};
	assert_int_equal(manifest_parse(&m, "{\"format\":2}", 12, &err), WN_UNSUPPORTED);
	assert_string_equal(err.message, "format: found 2, expected 1");
	err = (wn_error){0};
	const char *path = temp_file("bad.json", "{}", 2);
	assert_int_equal(manifest_read(&m, path, &err), WN_INVALID);
	assert_true(strncmp(err.message, path, strlen(path)) == 0);
}

static void what_would_be_refused_is_not_written(void **state)
{
	manifest m;
	wn_error err = {0};
	assert_int_equal(manifest_parse(&m, FULL, strlen(FULL), &err), WN_OK);
	m.labels[1].threshold = 2;
	assert_int_equal(manifest_write(&m, temp_path("never.json"), &err), WN_INVALID);
	assert_int_equal(manifest_check(&m, NULL), WN_INVALID);
	assert_non_null(strstr(err.message, "/never.json: labels[1].threshold: found 2.0, expected a probability from 0 to 1"));
	assert_int_equal(access(temp_path("never.json"), F_OK), -1);
	m.labels[1].threshold = 0.5;
	strcpy(m.labels[1].verbalizer, "\xff");
	err = (wn_error){0};
	assert_int_equal(manifest_write(&m, temp_path("never.json"), &err), WN_INVALID);
	assert_int_equal(manifest_check(&m, NULL), WN_INVALID);
	m.num_labels = 65;
	err = (wn_error){0};
	assert_int_equal(manifest_write(&m, temp_path("never.json"), &err), WN_INVALID);
	assert_int_equal(manifest_check(&m, NULL), WN_INVALID);
	m.num_labels = 2;
	manifest_close(&m);
}

static void every_truncation_and_flip_is_an_error_or_loads(void **state)
{
	char text[] = FULL;
	size_t len = strlen(text), loaded = 0;
	manifest m;
	for (size_t n = 0; n < len; n++) {
		wn_error err = {0};
		assert_int_not_equal(manifest_parse(&m, text, n, &err), WN_OK);
		assert_true(*err.message);
	}
	for (size_t i = 0; i < len * 2; i++) { /* two bits of every byte, others in the next */
		wn_error err = {0};
		char bit = (char)(1 << (i / 2 + i % 2 * 4) % 8);
		text[i / 2] ^= bit;
		if (manifest_parse(&m, text, len, &err) == WN_OK) {
			loaded++;
			manifest_close(&m);
		} else {
			assert_true(*err.message);
		}
		text[i / 2] ^= bit;
	}
	assert_true(loaded > 0);
}

/* ---- widths ---- */

static const char TINY[] =
	"{\"model_type\":\"blip-2\",\"vision_config\":{\"hidden_size\":16,\"num_attention_heads\":2,\"num_hidden_layers\":2,"
	"\"intermediate_size\":32},\"qformer_config\":{\"hidden_size\":16,\"num_attention_heads\":2,\"num_hidden_layers\":2,"
	"\"intermediate_size\":32},\"text_config\":{\"hidden_size\":16,\"num_attention_heads\":2,\"num_hidden_layers\":2,"
	"\"ffn_dim\":32}}";

static void widths_survive_config_and_manifest(void **state)
{
	static blip2_config c, plain, again;
	manifest m = {0}, read;
	wn_error err = {0};
	assert_int_equal(hf_config_parse(&c, TINY, strlen(TINY), &err), WN_OK);
	strcpy(m.name, "pruned");
	assert_int_equal(manifest_set_widths(&m, &c, &err), WN_OK);
	assert_null(m.widths); /* config.json says it all */
	c.vision.blocks[1] = (block_widths){.num_heads = 3, .head_dim = 5, .ffn_dim = 7};
	c.qformer.blocks[0].cross_num_heads = 1;
	c.qformer.blocks[1].cross_num_heads = 4;
	c.qformer.blocks[1].cross_head_dim = 2;
	c.text.blocks[0].ffn_dim = 1;
	assert_int_equal(manifest_set_widths(&m, &c, &err), WN_OK);
	assert_non_null(m.widths);
	assert_int_equal(manifest_write(&m, temp_path("pruned.json"), &err), WN_OK);
	char *json = hf_config_write(&c);
	assert_int_equal(hf_config_parse(&plain, json, strlen(json), &err), WN_OK);
	again = plain;
	assert_int_equal(manifest_read(&read, temp_path("pruned.json"), &err), WN_OK);
	assert_int_equal(manifest_apply_widths(&read, &again, &err), WN_OK);
	assert_memory_equal(&again.vision, &c.vision, sizeof c.vision);
	assert_memory_equal(&again.qformer, &c.qformer, sizeof c.qformer);
	assert_memory_equal(&again.text, &c.text, sizeof c.text);
	assert_int_equal(manifest_set_widths(&m, &plain, &err), WN_OK);
	assert_null(m.widths); /* cleared again */
	manifest_close(&m);
	manifest_close(&read);
	free(json);
}

static void bad_widths_change_nothing(void **state)
{
#define B "{\"num_heads\":2,\"head_dim\":8,\"ffn_dim\":4}"
	static const struct {
		const char *widths, *message;
		wn_code code;
	} bad[] = {
		{"{\"vision\":{}}", "widths.vision: found {}, expected an array", WN_INVALID},
		{"{\"vision\":[" B "]}", "widths.vision: found 1 blocks, expected config.json's num_hidden_layers 2", WN_INVALID},
		{"{\"vision\":[" B "," B "," B "]}", "widths.vision: found 3 blocks, expected config.json's num_hidden_layers 2",
	         WN_INVALID},
		{"{\"vision\":[" B ",5]}", "widths.vision[1]: found 5, expected an object", WN_INVALID},
		{"{\"vision\":[" B ",{\"num_heads\":2,\"head_dim\":8}]}",
	         "widths.vision[1].ffn_dim: found nothing, expected an integer from 1 to 65536", WN_INVALID},
		{"{\"vision\":[" B ",{\"num_heads\":0,\"head_dim\":8,\"ffn_dim\":4}]}",
	         "widths.vision[1].num_heads: found 0, expected an integer from 1 to 65536", WN_INVALID},
		{"{\"vision\":[" B ",{\"num_heads\":1.5,\"head_dim\":8,\"ffn_dim\":4}]}",
	         "widths.vision[1].num_heads: found 1.5, expected an integer from 1 to 65536", WN_INVALID},
		{"{\"vision\":[" B ",{\"num_heads\":65536,\"head_dim\":65536,\"ffn_dim\":4}]}",
	         "widths.vision[1].num_heads: found 65536 heads of 65536, expected an inner width of at most 65536", WN_TOO_LARGE},
		{"{\"vision\":[" B ",{\"num_heads\":2,\"head_dim\":8,\"ffn_dim\":4,\"cross_num_heads\":1,\"cross_head_dim\":1}]}",
	         "widths.vision[1].cross_num_heads: found an unknown key, expected num_heads, head_dim, ffn_dim", WN_INVALID},
		{"{\"qformer\":[" B ",{\"num_heads\":2,\"head_dim\":8,\"ffn_dim\":4,\"cross_num_heads\":1}]}",
	         "widths.qformer[1].cross_head_dim: found nothing, expected an integer from 1 to 65536", WN_INVALID},
		{"{\"qformer\":[" B "," B "]}", "widths.qformer: found no block with cross_num_heads, expected one at least",
	         WN_INVALID},
		{"{\"vision\":[" B "," B "],\"text\":[" B "]}",
	         "widths.text: found 1 blocks, expected config.json's num_hidden_layers 2", WN_INVALID},
	};
	static blip2_config before, c;
	wn_error err = {0};
	assert_int_equal(hf_config_parse(&before, TINY, strlen(TINY), &err), WN_OK);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		manifest m = {.widths = json_loads(bad[i].widths, 0, NULL)};
		assert_non_null(m.widths);
		c = before;
		err = (wn_error){0};
		assert_int_equal(manifest_apply_widths(&m, &c, &err), bad[i].code);
		assert_string_equal(err.message, bad[i].message);
		assert_memory_equal(&c, &before, sizeof c);
		manifest_close(&m);
	}
}

/* ---- digests ---- */

static void digests_notice_what_changed(void **state)
{
	manifest m = {0};
	wn_error err = {0};
	char expected[700], dir[100];
	assert_int_equal(mkdir(temp_path("model"), 0700), 0);
	snprintf(dir, sizeof dir, "%s/model", temp_dir); /* more paths follow than temp_path keeps */
	temp_file("model/config.json", "{}", 2);
	temp_file("model/weights", "abc", 3);
	temp_file("model/winnow.json", "old", 3);
	temp_file("model/.weights.1-2.tmp", "left by a crash", 15);
	assert_int_equal(mkdir(temp_path("model/sub"), 0700), 0);
	assert_int_equal(manifest_digest_files(&m, dir, &err), WN_OK);
	assert_int_equal(json_object_size(m.files), 2);
	assert_string_equal(json_string_value(json_object_get(m.files, "weights")),
	                    "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_int_equal(manifest_verify(&m, dir, &err), WN_OK);
	temp_file("model/README.md", "not read", 8);
	assert_int_equal(manifest_verify(&m, dir, &err), WN_OK);
	const char *unnamed = temp_file("model/tokenizer.json", "{}", 2);
	assert_int_equal(manifest_verify(&m, dir, &err), WN_INVALID);
	assert_non_null(strstr(err.message, "/model/tokenizer.json: found a file that winnow.json does not name"));
	unlink(unnamed);
	err = (wn_error){0};

	const char *path = temp_file("model/weights", "abb", 3);
	assert_int_equal(manifest_verify(&m, dir, &err), WN_INVALID);
	snprintf(expected, sizeof expected,
	         "%s: found sha256:32b0d6e14d95a8f1ea5d06f87ce1ebe0473ea63f011bdb6cda41fa4f8e6b2f83, expected "
	         "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	         path);
	assert_int_equal(strncmp(err.message, expected, strlen(path) + 14), 0);
	assert_non_null(strstr(err.message, "expected sha256:ba7816bf"));
	unlink(path);
	err = (wn_error){0};
	assert_int_equal(manifest_verify(&m, dir, &err), WN_INVALID);
	assert_non_null(strstr(err.message, "/model/weights: found no such file"));
	temp_file("outside", "abc", 3);
	assert_int_equal(symlink("../outside", path), 0);
	err = (wn_error){0};
	assert_int_equal(manifest_verify(&m, dir, &err), WN_INVALID);
	assert_non_null(strstr(err.message, "/model/weights: found a symbolic link, expected a regular file"));
	manifest_close(&m);
	err = (wn_error){0};
	assert_int_equal(manifest_digest_files(&m, temp_path("nowhere"), &err), WN_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_full_manifest_survives_a_round_trip),
		cmocka_unit_test(a_model_that_is_no_classifier_yet_needs_only_a_name),
		cmocka_unit_test(names_that_are_paths_are_refused),
		cmocka_unit_test(refusals_name_the_key),
		cmocka_unit_test(what_would_be_refused_is_not_written),
		cmocka_unit_test(every_truncation_and_flip_is_an_error_or_loads),
		cmocka_unit_test(widths_survive_config_and_manifest),
		cmocka_unit_test(bad_widths_change_nothing),
		cmocka_unit_test(digests_notice_what_changed),
	};
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
