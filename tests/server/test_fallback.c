/* test_fallback.c: a version on trial that cannot answer costs the trial a point and no client its answer: the version that answers
 * otherwise does, with its own inputs. The broken one is put into the registry by hand: a load would have refused it. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../base/assert_ok.h"
#include "in_process.h"
#include "tiny_registry.h"

static int set_up(void **state)
{
	/* 3e38: its logits are infinite. */
	static const tiny_classifier versions[] = {{.seed = 1},
						   {.seed = 2, .scaled = "language_model.model.decoder.final_layer_norm.weight", .factor = 3e38f}};
	tiny_registry_make(state, versions, 2);
	return 0;
}

/* Version 2 beside version 1, without the warm-up that would find it out. */
static trial *put_on_trial(in_process *server, trial_mode mode)
{
	char dir[100];
	load_step step;
	served_model *m = NULL;
	trial *t = NULL;
	tiny_version_dir(dir, 2);
	const int fd = open(dir, O_RDONLY | O_DIRECTORY);
	const load_request q = {.dir_fd = fd, .shown = dir, .name = "tiny", .version = 2, .placement = &(placement){.instances = 1, .threads = 1}, .max_batch = 1,
				.verify_digests = true, .memory_left = UINT64_MAX};
	assert_ok(model_load(&m, &q, &step, err));
	close(fd);
	assert_ok(registry_put(in_process_registry(server), m, false, err));
	assert_ok(trial_open(&t, mode, 100, NULL, NULL, err));
	trial_retain(t); /* the test's own */
	registry_set_trial(in_process_registry(server), "tiny", "2", t);
	return t;
}

static size_t make_body(char *body, size_t size)
{
	static const char HEAD[] = "--b\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\npoker\r\n"
				   "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"x\"\r\n\r\n";
	FILE *f = fopen(SAMPLES "/good.png", "rb");
	assert_non_null(f);
	memcpy(body, HEAD, sizeof HEAD - 1);
	size_t len = sizeof HEAD - 1;
	len += fread(body + len, 1, size - len - 16, f);
	fclose(f);
	return len + (size_t)sprintf(body + len, "\r\n--b--\r\n");
}

static void ask(in_process *server, float score[MAX_LABELS], char version[24])
{
	static char body[1 << 18];
	request *r = in_process_ask(server, "multipart/form-data; boundary=b", body, make_body(body, sizeof body));
	assert_non_null(r);
	if (r->outcome != REASON_OK)
		fail_msg("%s: %s", reason_name(r->outcome), r->detail);
	memcpy(score, r->probs, MAX_LABELS * sizeof *score);
	memcpy(version, r->served_version, sizeof r->served_version);
	in_process_put(server, r);
}

static in_process *open_server(const char *cache)
{
	const char *const settings[] = {"model.name=tiny", "model.version=1", cache, NULL};
	in_process *server = NULL;
	assert_ok(in_process_open(&server, tiny_root, settings, err));
	return server;
}

static void what_a_canary_cannot_answer_the_other_version_does(void **state)
{
	in_process *server = open_server("cache.bytes=0");
	float stable[MAX_LABELS], now[MAX_LABELS];
	char version[24];
	ask(server, stable, version);
	assert_string_equal(version, "1");
	trial *t = put_on_trial(server, TRIAL_CANARY);
	for (uint64_t i = 1; i <= 3; i++) {
		ask(server, now, version);
		assert_string_equal(version, "1");
		assert_memory_equal(now, stable, sizeof now);
		const trial_summary s = trial_read(t);
		assert_int_equal(s.selected, i);
		assert_int_equal(s.failed, i);
		assert_int_equal(s.compared, 0);
	}
	/* Who asks for that version by name is told that it fails. */
	static char body[1 << 18];
	size_t len = make_body(body, sizeof body);
	len -= strlen("--b--\r\n");
	len += (size_t)sprintf(body + len, "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ntiny/2\r\n--b--\r\n");
	request *r = in_process_ask(server, "multipart/form-data; boundary=b", body, len);
	assert_non_null(r);
	assert_string_equal(reason_name(r->outcome), "internal");
	in_process_put(server, r);
	assert_int_equal(trial_read(t).failed, 3);
	trial_release(&t);
	in_process_close(&server);
}

static void its_failures_do_not_enter_the_cache_under_its_name(void **state)
{
	in_process *server = open_server("cache.bytes=64KiB");
	float first[MAX_LABELS], again[MAX_LABELS];
	char version[24];
	trial *t = put_on_trial(server, TRIAL_CANARY);
	ask(server, first, version);
	assert_string_equal(version, "1");
	ask(server, again, version); /* version 2 fails again; version 1's answer comes from the cache */
	assert_string_equal(version, "1");
	assert_memory_equal(first, again, sizeof first);
	assert_int_equal(trial_read(t).failed, 2);
	trial_release(&t);
	in_process_close(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_canary_cannot_answer_the_other_version_does),
		cmocka_unit_test(its_failures_do_not_enter_the_cache_under_its_name),
	};
	return cmocka_run_group_tests(tests, set_up, temp_dir_remove);
}
