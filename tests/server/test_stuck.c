/* test_stuck.c: what stands still holds up nobody but itself. Behind a stuck decode or run of the model requests end at their deadlines,
 * a stuck decode at its own; and a version on trial is not blamed for a decoder that fails. This program is its own decoding
 * helper (server/decoder.h): TEST_HELPER says how it behaves. */
#include <dirent.h>
#include <fcntl.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>
#include <pthread.h>

#include "../base/assert_ok.h"
#include "in_process.h"
#include "server/audit_internal.h"
#include "server/decoder_internal.h"
#include "tiny_registry.h"

#define HOUR_NS ((int64_t)3600 * 1000000000)
#define SOON_NS ((int64_t)100000000)
#define BEHIND  3

static int set_up(void **state)
{
	/* 3e38: its logits are infinite. */
	static const tiny_classifier versions[] = {{.seed = 1}, {.seed = 2}, {.seed = 3, .scaled = "language_model.model.decoder.final_layer_norm.weight", .factor = 3e38f}};
	tiny_registry_make(state, versions, 3);
	return 0;
}

static void wait_a_little(void) { nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

/* ---- the helper ---- */

static int bad_helper(const char *how)
{
	struct stat st;
	char byte = 'r';
	fstat(HELPER_MEMORY, &st);
	decode_slot *slot = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, HELPER_MEMORY, 0);
	if (slot == MAP_FAILED)
		return 1;
	for (int n = 0; send(HELPER_SOCKET, &byte, 1, MSG_NOSIGNAL) == 1 && recv(HELPER_SOCKET, &byte, 1, 0) == 1; n++) {
		while (strcmp(how, "hang") == 0)
			pause();
		if (n == 1) /* "second": one black picture, then no more */
			_exit(1);
		slot->answer = (struct decode_answer){.code = WN_OK, .width = 8, .height = 8};
	}
	_exit(0);
}

static void kill_helpers(void)
{
	DIR *tasks = opendir("/proc/self/task");
	assert_non_null(tasks);
	for (struct dirent *e; (e = readdir(tasks));) {
		char path[300];
		snprintf(path, sizeof path, "/proc/self/task/%s/children", e->d_name);
		FILE *f = fopen(path, "r");
		for (int pid; f && fscanf(f, "%d", &pid) == 1;)
			kill(pid, SIGKILL);
		if (f)
			fclose(f);
	}
	closedir(tasks);
}

/* ---- asking ---- */

static size_t read_image(char *out, size_t size)
{
	FILE *f = fopen(SAMPLES "/good.png", "rb");
	assert_non_null(f);
	const size_t n = fread(out, 1, size, f);
	fclose(f);
	return n;
}

typedef struct asker {
	in_process *server;
	const char *model;
	int64_t budget_ns;
	pthread_t thread;
	request *r;
	atomic_bool done;
} asker;

static void *ask_main(void *arg)
{
	static const char HEAD[] = "--b\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\npoker\r\n"
				   "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n%s\r\n"
				   "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"x\"\r\n\r\n";
	asker *a = arg;
	char *body = malloc(1 << 18);
	assert_non_null(body);
	size_t len = (size_t)sprintf(body, HEAD, a->model);
	len += read_image(body + len, (1 << 18) - len - 16);
	len += (size_t)sprintf(body + len, "\r\n--b--\r\n");
	a->r = in_process_ask_within(a->server, "multipart/form-data; boundary=b", body, len, a->budget_ns);
	free(body);
	atomic_store(&a->done, true);
	return NULL;
}

static void begin_with(asker *a, in_process *server, const char *model, int64_t budget_ns)
{
	*a = (asker){.server = server, .model = model, .budget_ns = budget_ns};
	assert_int_equal(pthread_create(&a->thread, NULL, ask_main, a), 0);
}

static void begin(asker *a, in_process *server, int64_t budget_ns) { begin_with(a, server, "tiny/1", budget_ns); }

/* Waits for it, and for its end to be as expected; detail "": an answer. */
static void expect_end(asker *a, const char *why, const char *detail)
{
	pthread_join(a->thread, NULL);
	assert_non_null(a->r);
	assert_string_equal(reason_name(a->r->outcome), why);
	if (!strstr(a->r->detail, detail))
		fail_msg("found \"%s\", expected \"%s\"", a->r->detail, detail);
	in_process_put(a->server, a->r);
}

static void expect_answer(in_process *server)
{
	asker a;
	begin(&a, server, HOUR_NS);
	expect_end(&a, "ok", "");
}

/* Helpers misbehave until they are replaced. */
static in_process *open_server(const char *isolation, const char *helper)
{
	const char *const settings[] = {"model.name=tiny", "model.version=1", "inference.decode_threads=1", "decode.timeout=1h",
					"inference.max_batch=2", isolation, NULL};
	in_process *server = NULL;
	wn_error err = {0};
	if (!decode_helper_can_be_confined())
		skip();
	setenv("TEST_HELPER", helper, 1);
	if (in_process_open(&server, tiny_root, settings, &err) != WN_OK)
		fail_msg("%s", err.message);
	setenv("TEST_HELPER", "", 1);
	return server;
}

/* Nothing is counted any more as waiting, or as waiting to be decoded. */
static void expect_counts(in_process *server, size_t n)
{
	audit_service *s = in_process_audit(server);
	assert_int_equal(audit_waiting(s), n);
	assert_int_equal(atomic_load(&s->undecoded), n);
}

/* Beside version 1; its model holds a reference. */
static served_model *load_version(in_process *server, int version)
{
	char dir[100], number[8];
	load_step step;
	served_model *m = NULL;
	tiny_version_dir(dir, version);
	const int fd = open(dir, O_RDONLY | O_DIRECTORY);
	const load_request q = {.dir_fd = fd, .shown = dir, .name = "tiny", .version = version, .placement = &(placement){.instances = 1, .threads = 1}, .max_batch = 1,
				.verify_digests = true, .memory_left = UINT64_MAX};
	assert_ok(model_load(&m, &q, &step, err));
	close(fd);
	assert_ok(registry_put(in_process_registry(server), m, false, err));
	snprintf(number, sizeof number, "%d", version);
	return registry_find(in_process_registry(server), "tiny", number);
}

/* ---- behind a stuck decoder ---- */

static void who_waits_for_a_stuck_decoder_ends_at_his_deadline(void **state)
{
	in_process *server = open_server("decode.isolation=process", "hang");
	queue *q = in_process_audit(server)->to_decode;
	asker stuck, behind[BEHIND];
	while (queue_waiting(q) == 0) /* the decode thread is there, and then has it in its hands */
		wait_a_little();
	begin(&stuck, server, HOUR_NS);
	while (queue_waiting(q) > 0)
		wait_a_little();
	for (int i = 0; i < BEHIND; i++) /* the last one has the earliest deadline */
		begin(&behind[i], server, SOON_NS * (BEHIND - i));
	for (int i = 0; i < BEHIND; i++)
		expect_end(&behind[i], "deadline_exceeded", "passed before decoding");
	assert_false(atomic_load(&stuck.done));
	expect_counts(server, 1);
	kill_helpers(); /* from outside: it is decoded after all */
	expect_end(&stuck, "ok", "");
	expect_counts(server, 0);
	expect_answer(server);
	in_process_close(&server);
}

static void a_stuck_decode_ends_at_its_own_deadline(void **state)
{
	in_process *server = open_server("decode.isolation=process", "hang");
	asker stuck, behind;
	begin(&stuck, server, SOON_NS);
	expect_end(&stuck, "deadline_exceeded", "passed during decoding");
	begin(&behind, server, HOUR_NS);
	expect_end(&behind, "ok", "");
	expect_counts(server, 0);
	in_process_close(&server);
}

/* ---- behind a stuck run ---- */

typedef struct block {
	in_process *server;
	sem_t begun, end;
	pthread_t thread;
} block;

static void hold(void *arg)
{
	block *b = arg;
	sem_post(&b->begun);
	while (sem_wait(&b->end) != 0)
		;
}

static void *block_main(void *arg)
{
	block *b = arg;
	assert_true(audit_run_on(in_process_audit(b->server), 0, hold, b));
	return NULL;
}

static void block_inference(block *b, in_process *server)
{
	b->server = server;
	sem_init(&b->begun, 0, 0);
	sem_init(&b->end, 0, 0);
	pthread_create(&b->thread, NULL, block_main, b);
	while (sem_wait(&b->begun) != 0)
		;
}

static void let_go(block *b)
{
	sem_post(&b->end);
	pthread_join(b->thread, NULL);
	sem_destroy(&b->begun);
	sem_destroy(&b->end);
}

static void who_waits_for_a_stuck_run_ends_at_his_deadline(void **state)
{
	in_process *server = open_server("decode.isolation=thread", "");
	asker patient, behind[BEHIND];
	block b;
	block_inference(&b, server);
	begin(&patient, server, HOUR_NS);
	for (int i = 0; i < BEHIND; i++)
		begin(&behind[i], server, SOON_NS * (i + 1));
	for (int i = 0; i < BEHIND; i++)
		expect_end(&behind[i], "deadline_exceeded", "passed before ");
	while (queue_depth(in_process_audit(server)->to_infer) == 0) /* the patient one may be late */
		wait_a_little();
	assert_int_equal(audit_waiting(in_process_audit(server)), 1);
	assert_false(atomic_load(&patient.done));
	let_go(&b);
	expect_end(&patient, "ok", "");
	expect_counts(server, 0);
	in_process_close(&server);
}

static void who_waits_when_a_drain_is_over_is_told_at_once(void **state)
{
	in_process *server = open_server("decode.isolation=thread", "");
	asker waiting;
	block b;
	block_inference(&b, server);
	begin(&waiting, server, HOUR_NS);
	while (queue_depth(in_process_audit(server)->to_infer) == 0)
		wait_a_little();
	audit_abandon(in_process_audit(server));
	expect_end(&waiting, "draining", "");
	expect_counts(server, 0);
	let_go(&b);
	in_process_close(&server);
}

/* One run of the model stands still from its beginning until it is let go. */
static atomic_bool hold_next_run;
static block run_block;

wn_code __real_classifier_run(classifier_session *s, const classifier_input *in, int n, float *probs, wn_error *err);
wn_code __wrap_classifier_run(classifier_session *s, const classifier_input *in, int n, float *probs, wn_error *err);
wn_code __wrap_classifier_run(classifier_session *s, const classifier_input *in, int n, float *probs, wn_error *err)
{
	if (atomic_exchange(&hold_next_run, false))
		hold(&run_block);
	return __real_classifier_run(s, in, n, probs, err);
}

/* Both are taken out of the queue together, as a batch may have two; but they are of two versions, and the first one's run stands
 * still. other: the second one, which may have ended by now. */
static void take_two_and_hold_the_first(in_process *server, asker *first, asker *other, int64_t budget_ns)
{
	queue *q = in_process_audit(server)->to_infer;
	block both;
	block_inference(&both, server);
	begin_with(first, server, "tiny/1", HOUR_NS);
	while (queue_depth(q) < 1)
		wait_a_little();
	begin_with(other, server, "tiny/2", budget_ns);
	while (queue_depth(q) < 2 && !atomic_load(&other->done))
		wait_a_little();
	sem_init(&run_block.begun, 0, 0);
	sem_init(&run_block.end, 0, 0);
	atomic_store(&hold_next_run, true);
	let_go(&both);
	while (sem_wait(&run_block.begun) != 0)
		;
}

static void end_the_first(asker *first)
{
	assert_false(atomic_load(&first->done));
	sem_post(&run_block.end);
	expect_end(first, "ok", "");
	sem_destroy(&run_block.begun);
	sem_destroy(&run_block.end);
}

static void who_was_taken_out_with_a_stuck_run_waits_as_everybody(void **state)
{
	in_process *server = open_server("decode.isolation=thread", "");
	asker first, other;
	served_model *m = load_version(server, 2);
	registry_release(&m);
	take_two_and_hold_the_first(server, &first, &other, HOUR_NS);
	assert_int_equal(audit_waiting(in_process_audit(server)), 1);
	assert_int_equal(queue_depth(in_process_audit(server)->to_infer), 1);
	end_the_first(&first);
	expect_end(&other, "ok", ""); /* in its turn */
	take_two_and_hold_the_first(server, &first, &other, 5 * SOON_NS);
	expect_end(&other, "deadline_exceeded", "passed before ");
	end_the_first(&first);
	expect_counts(server, 0);
	take_two_and_hold_the_first(server, &first, &other, HOUR_NS);
	audit_abandon(in_process_audit(server));
	expect_end(&other, "draining", "");
	end_the_first(&first);
	expect_counts(server, 0);
	in_process_close(&server);
}

/* ---- a version on trial ---- */

/* What a comparison of version 1 with another makes of the trial. */
static trial_summary compare(const char *isolation, const char *helper, int version)
{
	static char file[1 << 17];
	in_process *server = open_server("decode.isolation=thread", "");
	server_config config = *in_process_config(server);
	request_pool *pool = in_process_pool(server);
	comparer *c = NULL;
	trial *t = NULL;
	config.decode_isolation = strcmp(isolation, "process") == 0 ? DECODE_IN_PROCESS : DECODE_IN_THREAD;
	setenv("TEST_HELPER", helper, 1);
	assert_ok(compare_open(&c, &config, err));
	setenv("TEST_HELPER", "", 1);
	assert_ok(trial_open(&t, TRIAL_SHADOW, 100, NULL, NULL, err));
	request *r = request_pool_get(pool);
	assert_non_null(r);
	assert_ok(bytes_append(&r->body, file, read_image(file, sizeof file), sizeof file, err));
	assert_ok(bytes_set_string(&r->text, "poker", 5, err));
	r->image = r->body.data;
	r->image_len = r->body.len;
	r->model = registry_find(in_process_registry(server), "tiny", "1");
	r->other = load_version(server, version);
	trial_retain(t);
	r->trial = t;
	compare_submit(c, r);
	compare_close(&c); /* finishes what it has */
	request_pool_put(pool, r);
	const trial_summary s = trial_read(t);
	trial_release(&t);
	in_process_close(&server);
	return s;
}

static void a_decoder_that_fails_is_not_the_candidates_failure(void **state)
{
	const trial_summary good = compare("thread", "", 2);
	assert_int_equal(good.compared, 1);
	assert_int_equal(good.failed + good.dropped, 0);
	const trial_summary bad = compare("thread", "", 3); /* its answer is no number */
	assert_int_equal(bad.failed, 1);
	assert_int_equal(bad.compared + bad.dropped, 0);
	const trial_summary unlucky = compare("process", "second", 2); /* decoded for the one, and not for the other */
	assert_int_equal(unlucky.dropped, 1);
	assert_int_equal(unlucky.compared + unlucky.failed, 0);
	const trial_summary both = compare("process", "second", 3); /* it would have failed, had it been asked */
	assert_int_equal(both.dropped, 1);
	assert_int_equal(both.compared + both.failed, 0);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], DECODE_HELPER_OPTION) == 0) {
		const char *how = getenv("TEST_HELPER");
		return how && *how ? bad_helper(how) : decode_helper_main();
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_waits_for_a_stuck_decoder_ends_at_his_deadline),
		cmocka_unit_test(a_stuck_decode_ends_at_its_own_deadline),
		cmocka_unit_test(who_waits_for_a_stuck_run_ends_at_his_deadline),
		cmocka_unit_test(who_waits_when_a_drain_is_over_is_told_at_once),
		cmocka_unit_test(who_was_taken_out_with_a_stuck_run_waits_as_everybody),
		cmocka_unit_test(a_decoder_that_fails_is_not_the_candidates_failure),
	};
	return cmocka_run_group_tests(tests, set_up, temp_dir_remove);
}
