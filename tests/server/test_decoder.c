/* The image decoder in a helper process: the same pixels and refusals as in this process; and a helper that crashes, hangs,
 * lies or tries to leave costs one image. This program is its own helper: TEST_DECODER says how it behaves. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "server/decoder_internal.h"

static const decoder_options THREAD = {.isolation = DECODE_IN_THREAD, .limits = {.max_side = 4096, .max_pixels = 4 << 20, .max_bytes = 4 << 20},
				       .timeout_ns = 60 * (int64_t)1000000000};

static decoder *open_isolated(const char *behaviour, int64_t timeout_ns)
{
	decoder_options opt = THREAD;
	decoder *d = NULL;
	wn_error err = {0};
	opt.isolation = DECODE_IN_PROCESS;
	opt.timeout_ns = timeout_ns;
	setenv("TEST_DECODER", behaviour, 1);
	wn_code code = decoder_open(&d, &opt, &err);
	if (code == WN_UNSUPPORTED)
		skip();
	if (code != WN_OK)
		fail_msg("%s", err.message);
	return d;
}

static void read_sample(const char *name, char **data, size_t *len)
{
	char path[256];
	wn_error err = {0};
	snprintf(path, sizeof path, "%s/%s", SAMPLES, name);
	if (file_read(path, 16 << 20, data, len, &err) != WN_OK)
		fail_msg("%s", err.message);
}

static const char *const NAMES[] = {"good.png", "good.jpg", "gray.jpg", "truncated.jpg", "cut.png", "huge.png", "text.png"};

static void helper_gives_the_same_as_this_process(void **state)
{
	decoder *here, *there = open_isolated("", THREAD.timeout_ns);
	wn_error err = {0};
	assert_int_equal(decoder_open(&here, &THREAD, &err), WN_OK);
	int compared = 0;
	for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
		char path[256], *data;
		size_t len;
		snprintf(path, sizeof path, "%s/%s", SAMPLES, NAMES[i]);
		if (access(path, R_OK) != 0)
			continue;
		read_sample(NAMES[i], &data, &len);
		for (size_t cut = 0; cut < 4; cut++) { /* whole, and cut short thrice */
			image a, b;
			wn_error ea = {0}, eb = {0};
			size_t n = len - len / 4 * cut;
			wn_code ca = decoder_decode(here, &a, data, n, 56, 56, &ea);
			wn_code cb = decoder_decode(there, &b, data, n, 56, 56, &eb);
			assert_int_equal(ca, cb);
			assert_string_equal(ea.message, eb.message);
			if (ca == WN_OK) {
				assert_int_equal(a.width, b.width);
				assert_int_equal(a.height, b.height);
				assert_memory_equal(a.beyond, b.beyond, sizeof a.beyond);
				assert_memory_equal(a.rgb, b.rgb, 3 * (size_t)a.width * (size_t)a.height);
				compared++;
			}
			decoder_release(here, &a);
			decoder_release(there, &b);
		}
		free(data);
	}
	assert_true(compared >= 1);
	assert_int_equal(decoder_restarts(there), 0);
	decoder_close(&here);
	decoder_close(&there);
}

/* One image to a helper that misbehaves on its first image; the helper after it behaves. */
static void expect_refusal(const char *behaviour, int64_t timeout_ns, const char *message)
{
	decoder *d = open_isolated("", timeout_ns); /* skips where the helper after it could not be confined */
	decoder_close(&d);
	d = open_isolated(behaviour, timeout_ns);
	char *data;
	size_t len;
	image img;
	wn_error err = {0};
	read_sample("good.png", &data, &len);
	setenv("TEST_DECODER", "", 1);
	assert_int_equal(decoder_decode(d, &img, data, len, 56, 56, &err), WN_INVALID);
	if (!strstr(err.message, message))
		fail_msg("%s: found \"%s\", expected \"%s\"", behaviour, err.message, message);
	assert_null(img.rgb);
	if (strcmp(behaviour, "lie") != 0) {
		/* A short timeout is one for well-behaved helpers too, if the machine is busy. */
		int tries = timeout_ns < THREAD.timeout_ns ? 100 : 1;
		for (err = (wn_error){0}; tries > 0; tries--, err = (wn_error){0})
			if (decoder_decode(d, &img, data, len, 56, 56, &err) == WN_OK)
				break;
		if (tries == 0)
			fail_msg("after %s no image is decoded", behaviour);
		decoder_release(d, &img);
		assert_true(decoder_restarts(d) >= 1);
	}
	free(data);
	decoder_close(&d);
}

static void helper_that_crashes_costs_one_image(void **state)
{
	expect_refusal("crash", THREAD.timeout_ns, "crashed on this image (signal 11)");
}

static void helper_that_hangs_is_replaced(void **state)
{
	expect_refusal("hang", 50000000, "took longer than 0.05 s");
}

static void helper_that_lies_is_not_believed(void **state)
{
	expect_refusal("lie", THREAD.timeout_ns, "cannot be decoded");
}

static void helper_cannot_leave(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(); /* a sanitizer's helper is not confined */
#else
	char message[64];
	snprintf(message, sizeof message, "signal %d", SIGSYS);
	expect_refusal("open", THREAD.timeout_ns, message);
	expect_refusal("socket", THREAD.timeout_ns, message);
	expect_refusal("execute", THREAD.timeout_ns, message);
	expect_refusal("fork", THREAD.timeout_ns, message);
	expect_refusal("write", THREAD.timeout_ns, message);
#endif
}

static void idle_helper_that_died_costs_nothing(void **state)
{
	decoder *d = open_isolated("", THREAD.timeout_ns);
	char *data;
	size_t len;
	image img;
	wn_error err = {0};
	read_sample("good.png", &data, &len);
	FILE *children = NULL;
	char path[64];
	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	int pid = 0;
	if (!(children = fopen(path, "r")) || fscanf(children, "%d", &pid) != 1)
		fail_msg("no helper in %s", path);
	fclose(children);
	kill(pid, SIGKILL);
	siginfo_t info;
	waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
	if (decoder_decode(d, &img, data, len, 56, 56, &err) != WN_OK)
		fail_msg("%s", err.message);
	decoder_release(d, &img);
	assert_int_equal(decoder_restarts(d), 1);
	free(data);
	decoder_close(&d);
}

static void file_beyond_the_limit_is_refused(void **state)
{
	decoder *d = open_isolated("", THREAD.timeout_ns);
	char *data = calloc(1, (4 << 20) + 1);
	image img;
	wn_error err = {0};
	assert_int_equal(decoder_decode(d, &img, data, (4 << 20) + 1, 56, 56, &err), WN_TOO_LARGE);
	free(data);
	decoder_close(&d);
}

static void auto_does_without_a_helper(void **state)
{
	decoder_options opt = THREAD;
	decoder *d;
	image img;
	wn_error err = {0};
	char *data;
	size_t len;
	(void)state;
	setenv("TEST_DECODER", "unconfined", 1);
	opt.isolation = DECODE_IN_PROCESS;
	assert_int_equal(decoder_open(&d, &opt, &err), WN_UNSUPPORTED);
	assert_null(d);
	opt.isolation = DECODE_AUTO;
	assert_int_equal(decoder_open(&d, &opt, &err), WN_OK);
	read_sample("good.jpg", &data, &len);
	assert_int_equal(decoder_decode(d, &img, data, len, 56, 56, &err), WN_OK);
	decoder_release(d, &img);
	free(data);
	decoder_close(&d);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nobody is left */
}

/* ---- helpers that misbehave ---- */

static void misbehave(const char *how, decode_slot *slot)
{
	if (strcmp(how, "crash") == 0) {
		signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would exit instead */
		raise(SIGSEGV);
	} else if (strcmp(how, "hang") == 0) {
		for (;;)
			pause();
	} else if (strcmp(how, "lie") == 0) {
		slot->answer = (struct decode_answer){.code = WN_OK, .width = 60000, .height = 60000};
	} else if (strcmp(how, "open") == 0) {
		open("/etc/passwd", O_RDONLY);
	} else if (strcmp(how, "socket") == 0) {
		socket(AF_INET, SOCK_STREAM, 0);
	} else if (strcmp(how, "execute") == 0) {
		mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	} else if (strcmp(how, "fork") == 0) {
		fork();
	} else if (strcmp(how, "write") == 0) {
		(void)!write(2, "x", 1);
	}
}

static int bad_helper(const char *how)
{
	struct stat st;
	wn_error err = {0};
	char byte = 'r';
	if (strcmp(how, "unconfined") == 0)
		return HELPER_EXIT(WN_UNSUPPORTED);
	int needs_calls = strcmp(how, "crash") == 0 || strcmp(how, "hang") == 0;
	fstat(HELPER_MEMORY, &st);
	decode_slot *slot = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, HELPER_MEMORY, 0);
	if (slot == MAP_FAILED || (!needs_calls && decode_helper_confine(&err) != WN_OK))
		return HELPER_EXIT(err.code);
	while (send(HELPER_SOCKET, &byte, 1, MSG_NOSIGNAL) == 1 && recv(HELPER_SOCKET, &byte, 1, 0) == 1)
		misbehave(how, slot);
	_exit(0);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], DECODE_HELPER_OPTION) == 0) {
		const char *how = getenv("TEST_DECODER");
		return how && *how ? bad_helper(how) : decode_helper_main();
	}
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(helper_gives_the_same_as_this_process),
	    cmocka_unit_test(helper_that_crashes_costs_one_image),
	    cmocka_unit_test(helper_that_hangs_is_replaced),
	    cmocka_unit_test(helper_that_lies_is_not_believed),
	    cmocka_unit_test(helper_cannot_leave),
	    cmocka_unit_test(auto_does_without_a_helper),
	    cmocka_unit_test(idle_helper_that_died_costs_nothing),
	    cmocka_unit_test(file_beyond_the_limit_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
