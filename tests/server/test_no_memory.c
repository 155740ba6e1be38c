/* test_no_memory.c: memory runs out at every place in turn, while the configuration is read, while versions are found, loaded,
 * swapped and tried out, and while requests are answered.
 *
 * Every failure is an error with a message (for a client a 503), crashes nothing, leaves nothing behind (the address sanitizer
 * counts) and the next attempt gives the right answer. What fails are winnow's own calls, jansson's, and those of oneDNN's that can
 * say no. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dnnl_version.h>
#include <nettle/base64.h>
#include <omp.h>

#include "../base/assert_ok.h"
#include "failing_calls.h"
#include "in_process.h"
#include "tiny_registry.h"
#include "model/self_test.h"
#include "server/access.h"

#define OUT_OF_MEMORY 1 /* dnnl_out_of_memory */

/* ---- oneDNN's calls that can fail (its types are pointers; the binary interface is the same in 2 and 3) ---- */

#define ONEDNN(name, parameters, arguments)                                                                                \
	int __real_dnnl_##name parameters;                                                                                 \
	int __wrap_dnnl_##name parameters;                                                                                 \
	int __wrap_dnnl_##name parameters { return failing_call(CALLS_ONEDNN) ? OUT_OF_MEMORY : __real_dnnl_##name arguments; }

ONEDNN(memory_create, (void **out, const void *desc, void *on, void *data), (out, desc, on, data))
ONEDNN(stream_create, (void **out, void *on, unsigned flags), (out, on, flags))
ONEDNN(primitive_create, (void **out, const void *desc), (out, desc))
ONEDNN(primitive_execute, (const void *p, void *stream, int n, const void *args), (p, stream, n, args))
ONEDNN(primitive_attr_create, (void **out), (out))
ONEDNN(primitive_attr_set_post_ops, (void *attr, const void *post), (attr, post))
ONEDNN(post_ops_create, (void **out), (out))
ONEDNN(reorder_primitive_desc_create, (void **out, const void *src, void *e1, const void *dst, void *e2, const void *attr),
       (out, src, e1, dst, e2, attr))
#if DNNL_VERSION_MAJOR >= 3
ONEDNN(matmul_primitive_desc_create,
       (void **out, void *on, const void *a, const void *b, const void *bias, const void *c, const void *attr),
       (out, on, a, b, bias, c, attr))
#else
ONEDNN(primitive_desc_create, (void **out, const void *op, const void *attr, void *on, const void *hint),
       (out, op, attr, on, hint))
#endif

/* ---- a registry with two versions ---- */

/* What a publisher adds: a sample with this model's answer. */
static void add_self_test(const char *dir)
{
	char path[128];
	classifier *c = NULL;
	classifier_session *s = NULL;
	json_t *test = NULL;
	assert_ok(classifier_open(&c, dir, NULL, err));
	assert_ok(classifier_session_open(&s, c, 1, err));
	assert_ok(self_test_make(&test, c, s, err));
	classifier_session_close(&s);
	classifier_close(&c);
	snprintf(path, sizeof path, "%s/winnow.json", dir);
	json_t *document = json_load_file(path, 0, NULL);
	assert_non_null(document);
	assert_int_equal(json_object_set_new(document, "self_test", test), 0);
	assert_int_equal(json_dump_file(document, path, 0), 0);
	json_decref(document);
}

static int set_up(void **state)
{
	char dir[100];
	tiny_registry_make(state, (tiny_classifier[]){{.seed = 1}, {.seed = 2}}, 2);
	for (int v = 1; v <= 2; v++) {
		tiny_version_dir(dir, v);
		add_self_test(dir);
	}
	return 0;
}

/* ---- right answers ---- */

/* What the version that answers now says of one input; no counted call is made. */
static void ask_model(registry *r, float probs[MAX_LABELS], char version[MODEL_VERSION_SIZE])
{
	static float pixels[3 * 16 * 16];
	int32_t ids[64];
	int count = 0;
	served_model *m = registry_acquire(r);
	assert_non_null(m);
	for (size_t i = 0; i < sizeof pixels / sizeof *pixels; i++)
		pixels[i] = (float)(i % 17) / 8 - 1;
	memset(probs, 0, MAX_LABELS * sizeof *probs);
	assert_ok(classifier_encode_prompt(m->classifier, "poker 赌博", "", ids, &count, err));
	assert_ok(classifier_run(m->sessions[0], &(classifier_input){pixels, ids, count}, 1, probs, err));
	snprintf(version, MODEL_VERSION_SIZE, "%s", m->version);
	registry_release(&m);
}

/* By version and precision, as the first to ask got them: undisturbed. */
static float known[3][4][MAX_LABELS];
static bool is_known[3][4];

static void check_answers(registry *r, int run_in, int version)
{
	float probs[MAX_LABELS];
	char found[MODEL_VERSION_SIZE];
	ask_model(r, probs, found);
	assert_int_equal(atoi(found), version);
	if (!is_known[version][run_in])
		memcpy(known[version][run_in], probs, sizeof probs);
	is_known[version][run_in] = true;
	assert_memory_equal(known[version][run_in], probs, sizeof probs);
}

/* ---- loading ---- */

typedef struct load_case {
	const char *const *settings;
	int version;
	long attempts;
} load_case;

static bool run_at_once(void *cls, int instance, void (*fn)(void *arg), void *arg)
{
	fn(arg);
	return true;
}

/* Finds the versions, loads, warms up and self-tests one, asks it. */
static wn_code load_once(const load_case *l, wn_error *err)
{
	server_config c = {0};
	char text[128];
	registry *r = NULL;
	manager *m = NULL;
	const placement p = {.mode = "latency", .instances = 1, .threads = 1};
	manager_options o = {.config = &c, .placement = &p, .run_on = run_at_once};
	wn_code rc = config_defaults(&SERVER_CONFIG_SCHEMA, &c, err);
	snprintf(text, sizeof text, "model.registry=%s", tiny_root);
	if (!rc)
		rc = config_set(&SERVER_CONFIG_SCHEMA, &c, text, err);
	for (int i = 0; l->settings[i] && !rc; i++)
		rc = config_set(&SERVER_CONFIG_SCHEMA, &c, l->settings[i], err);
	if (!rc)
		rc = registry_open(&r, c.model_name, err);
	o.registry = r;
	if (!rc)
		rc = manager_open(&m, &o, err);
	failing_calls_disarm(); /* what follows asks and clears up */
	if (!rc)
		check_answers(r, c.precision, l->version);
	if (r) {
		manager_close(&m);
		registry_close(&r);
	}
	config_free(&SERVER_CONFIG_SCHEMA, &c);
	return rc;
}

static wn_code load(void *cls, wn_error *err)
{
	load_case *l = cls;
	wn_code rc = load_once(l, err);
	/* Attempts know nothing of each other: it is enough to see now and then that one undisturbed goes well. */
	wn_error none = {0};
	if (rc != WN_OK && ++l->attempts % 16 == 0 && load_once(l, &none) != WN_OK)
		fail_msg("after \"%s\": %s", err->message, none.message);
	return rc;
}

static void a_load_survives_every_failure(void **state)
{
	static const char *const f32[] = {"model.name=tiny", "model.version=1", "inference.max_batch=2", "inference.precision=f32", NULL};
	static const char *const int8[] = {"model.name=tiny", "model.version=2", "inference.max_batch=2", "inference.precision=int8", NULL};
	load_case cases[] = {{f32, 1, 0}, {int8, 2, 0}};
	omp_set_num_threads(1);
	for (int i = 0; i < 2; i++) {
		wn_error none = {0};
		long refused = 0;
		if (load_once(&cases[i], &none) != WN_OK) /* what is right */
			fail_msg("%s", none.message);
		long own = every_failure(CALLS_OWN, load, &cases[i], &refused);
		print_message("%s: %ld calls of its own, %ld of them fatal to the load;", cases[i].settings[3], own, refused);
		assert_true(own > 100 && refused > own / 2);
		long read = every_failure(CALLS_JANSSON, load, &cases[i], &refused);
		print_message(" %ld of jansson, %ld fatal;", read, refused);
		assert_true(read > 100 && refused == read);
		long theirs = every_failure(CALLS_ONEDNN, load, &cases[i], &refused);
		print_message(" %ld of oneDNN, %ld fatal\n", theirs, refused);
		assert_true(theirs > 50 && refused > theirs / 2);
	}
}

/* ---- answering ---- */

typedef struct ad {
	const char *file;
	const char *image_key; /* NULL: multipart; in JSON, the key of the image, quoted */
	const char *type;
	unsigned char body[1 << 18];
	size_t len;
} ad;

static size_t read_file(const char *name, unsigned char *out, size_t size)
{
	char path[300];
	snprintf(path, sizeof path, "%s/%s", SAMPLES, name);
	FILE *f = fopen(path, "rb");
	if (!f)
		fail_msg("cannot read %s", path);
	size_t n = fread(out, 1, size, f);
	fclose(f);
	return n;
}

static void make_json(ad *a)
{
	unsigned char picture[1 << 16];
	const size_t n = read_file(a->file, picture, sizeof picture);
	a->len = (size_t)sprintf((char *)a->body,
				 "{\"text\": \"poker \\u8d4c\xe5\x8d\x9a\", \"data_id\": \"ad-1\", \"assist\": \"nobody reads it\", %s: \"",
				 a->image_key);
	base64_encode_raw((char *)a->body + a->len, n, picture);
	a->len += BASE64_ENCODE_RAW_LENGTH(n);
	memcpy(a->body + a->len, "\"}", 2);
	a->len += 2;
	a->type = "application/json";
}

static void make_multipart(ad *a)
{
	static const char HEAD[] = "--b\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\npoker \xe8\xb5\x8c\xe5\x8d\x9a\r\n"
				   "--b\r\nContent-Disposition: form-data; name=\"data_id\"\r\n\r\nad-1\r\n"
				   "--b\r\nContent-Disposition: form-data; name=\"assist\"\r\n\r\nnobody reads it\r\n"
				   "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"x\"\r\n\r\n";
	static const char TAIL[] = "\r\n--b--\r\n";
	memcpy(a->body, HEAD, sizeof HEAD - 1);
	a->len = sizeof HEAD - 1;
	a->len += read_file(a->file, a->body + a->len, sizeof a->body - a->len - sizeof TAIL);
	memcpy(a->body + a->len, TAIL, sizeof TAIL - 1);
	a->len += sizeof TAIL - 1;
	a->type = "multipart/form-data; boundary=b";
}

typedef struct audit_case {
	in_process *server;
	const ad *ad;
	char expected[1024]; /* the answer from "suggestion" to "timing_ms" */
} audit_case;

/* The part of an answer that is the same whenever it is given. */
static void copy_lasting(char *out, size_t size, const char *answer)
{
	const char *from = strstr(answer, "\"suggestion\""), *end = strstr(answer, "\"timing_ms\"");
	if (!from || !end || from > end || !strstr(answer, "\"data_id\":\"ad-1\""))
		fail_msg("not whole: %s", answer);
	snprintf(out, size, "%.*s", (int)(end - from), from);
}

static wn_code audit_once(audit_case *a, wn_error *err)
{
	char found[sizeof a->expected];
	request *r = in_process_ask(a->server, a->ad->type, a->ad->body, a->ad->len);
	if (!r)
		return wn_fail(err, WN_NOMEM, "no memory for a request");
	failing_calls_disarm();
	wn_code rc = WN_OK;
	if (r->outcome == REASON_OK) {
		json_t *answer = json_loadb(r->answer, r->answer_len, JSON_REJECT_DUPLICATES, NULL);
		assert_int_equal(json_object_size(answer), 8);
		json_decref(answer);
		copy_lasting(found, sizeof found, r->answer);
		if (!*a->expected)
			memcpy(a->expected, found, sizeof found);
		assert_string_equal(found, a->expected);
	} else {
		assert_string_equal(reason_name(r->outcome), "out_of_memory");
		assert_int_equal(reason_status(r->outcome), 503);
		assert_true(*r->detail);
		assert_null(r->answer);
		rc = wn_fail(err, WN_NOMEM, "%s", r->detail);
	}
	in_process_put(a->server, r);
	return rc;
}

static wn_code audit(void *cls, wn_error *err)
{
	wn_code rc = audit_once(cls, err);
	wn_error none = {0};
	if (rc != WN_OK && audit_once(cls, &none) != WN_OK) /* the same session, right away */
		fail_msg("after \"%s\": %s", err->message, none.message);
	return rc;
}

static void make_body(ad *a)
{
	if (a->image_key)
		make_json(a);
	else
		make_multipart(a);
}

static void a_request_survives_every_failure(void **state)
{
	static const char *const settings[] = {"model.name=tiny", "model.version=1", "inference.max_batch=2", NULL};
	/* An escaped key is one that the server does not see before jansson does: the whole image goes through it. */
	static ad ads[] = {{.file = "good.png"}, {.file = "good.jpg"}, {.file = "good.png", .image_key = "\"image\""},
			   {.file = "good.jpg", .image_key = "\"\\u0069mage\""}};
	in_process *server = NULL;
	assert_ok(in_process_open(&server, tiny_root, settings, err));
	for (size_t i = 0; i < sizeof ads / sizeof *ads; i++) {
		audit_case a = {.server = server, .ad = &ads[i]};
		wn_error none = {0};
		long refused = 0;
		make_body(&ads[i]);
		if (audit(&a, &none) != WN_OK)
			fail_msg("%s", none.message);
		long own = every_failure(CALLS_OWN, audit, &a, &refused);
		print_message("%s, %s: %ld calls of its own, %ld fatal to the request;", ads[i].type, ads[i].file, own, refused);
		assert_true(own >= 8 && refused >= own - 1);
		long written = every_failure(CALLS_JANSSON, audit, &a, &refused);
		print_message(" %ld of jansson, %ld fatal;", written, refused);
		assert_true(written > 20 && refused == written);
		long products = every_failure(CALLS_ONEDNN, audit, &a, &refused);
		print_message(" %ld products, %ld fatal\n", products, refused);
		assert_true(products > 10 && refused == products);
	}
	assert_int_equal(request_pool_bytes(in_process_pool(server)), 0);
	in_process_close(&server);
}

static void a_cache_that_cannot_keep_an_answer_costs_nothing(void **state)
{
	static const char *const settings[] = {"model.name=tiny", "model.version=1", "cache.bytes=64KiB", NULL};
	static ad one = {.file = "good.png"};
	in_process *server = NULL;
	make_body(&one);
	assert_ok(in_process_open(&server, tiny_root, settings, err));
	char *text = strstr((char *)one.body, "poker"), number[8];
	long k = 0;
	for (bool failed = true; failed; k++) {
		/* A text of its own each time, so that nothing is answered from the cache. */
		snprintf(number, sizeof number, "%05ld", k % 100000);
		memcpy(text, number, 5);
		failing_calls_arm(CALLS_OWN, k + 1);
		request *r = in_process_ask(server, one.type, one.body, one.len);
		failed = failing_calls_disarm();
		assert_true(r || failed);
		assert_true(!r || r->outcome == REASON_OK || (failed && r->outcome == REASON_OUT_OF_MEMORY));
		assert_true(!r || !r->cached);
		if (r)
			in_process_put(server, r);
		assert_true(k < 1000);
	}
	assert_true(k > 8);
	in_process_close(&server);
}

/* ---- swapping ---- */

static wn_code swap(void *cls, wn_error *err)
{
	in_process *server = cls;
	model_command c = in_process_command(server, COMMAND_LOAD, "tiny", 2);
	failing_calls_disarm();
	wn_code rc = WN_OK;
	if (c.outcome != REASON_OK) { /* the old one answers, and another attempt succeeds */
		assert_true(*c.detail);
		assert_int_equal(c.answers, 1);
		check_answers(in_process_registry(server), 1, 1);
		rc = wn_fail(err, WN_NOMEM, "%s", c.detail);
		c = in_process_command(server, COMMAND_LOAD, "tiny", 2);
	}
	if (c.outcome != REASON_OK)
		fail_msg("after \"%s\": %s", rc ? err->message : "nothing", c.detail);
	check_answers(in_process_registry(server), 1, 2);
	c = in_process_command(server, COMMAND_LOAD, "tiny", 1);
	assert_int_equal(c.outcome, REASON_OK);
	return rc;
}

static void a_swap_survives_every_failure(void **state)
{
	static const char *const settings[] = {"model.name=tiny", "model.version=1", "model.watch=false", "model.poll_interval=1h",
					       "inference.precision=f32", NULL};
	in_process *server = NULL;
	wn_error none = {0};
	long refused = 0;
	assert_ok(in_process_open(&server, tiny_root, settings, err));
	assert_ok(in_process_start_manager(server, err));
	assert_int_equal(swap(server, &none), WN_OK);
	long own = every_failure(CALLS_OWN, swap, server, &refused);
	print_message("a swap: %ld calls of its own, %ld fatal to it\n", own, refused);
	assert_true(own > 80 && refused > own / 2);
	in_process_close(&server);
}

/* ---- configuration ---- */

static wn_code configure(void *cls, wn_error *err)
{
	server_config c = {0};
	access_control *a = NULL;
	access_rules *read = NULL;
	char text[256];
	snprintf(text, sizeof text, "keys.inference_file=%s/keys", temp_dir);
	wn_code rc = config_load(&SERVER_CONFIG_SCHEMA, &c, cls, err);
	if (!rc)
		rc = config_set(&SERVER_CONFIG_SCHEMA, &c, text, err);
	if (!rc)
		rc = server_config_check(&c, err);
	if (!rc)
		rc = access_rules_load(&read, &c, err);
	if (!rc)
		rc = access_open(&a, &read, err);
	failing_calls_disarm();
	if (!rc) {
		assert_int_equal(c.queue_capacity, 7);
		assert_string_equal(c.other_models.items[1], "b=2");
		access_rules *rules = access_acquire(a);
		assert_int_equal(rules->keys[ROLE_INFERENCE].count, 2);
		access_release(&rules);
	}
	access_close(&a);
	config_free(&SERVER_CONFIG_SCHEMA, &c);
	return rc;
}

static void a_configuration_survives_every_failure(void **state)
{
	static const char yaml[] = "model:\n  name: tiny\n  others: [a, b=2]\ninference: {queue_capacity: 7}\n";
	static const char keys[] = "# who\nalice alice-key-aaaaaaaaaa\nbob-key-bbbbbbbbbbbb\n";
	char path[128];
	long refused = 0;
	snprintf(path, sizeof path, "%s", temp_file("server.yaml", yaml, sizeof yaml - 1));
	temp_file("keys", keys, sizeof keys - 1);
	long own = every_failure(CALLS_OWN, configure, path, &refused);
	print_message("a configuration: %ld calls of its own, %ld fatal to it\n", own, refused);
	assert_true(own > 15 && refused == own);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_configuration_survives_every_failure),
		cmocka_unit_test(a_load_survives_every_failure),
		cmocka_unit_test(a_request_survives_every_failure),
		cmocka_unit_test(a_cache_that_cannot_keep_an_answer_costs_nothing),
		cmocka_unit_test(a_swap_survives_every_failure),
	};
	return cmocka_run_group_tests(tests, set_up, temp_dir_remove);
}
