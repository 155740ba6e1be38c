/* The image decoder in a helper process: the same pixels and refusals as in this process; and a helper that crashes, hangs,
 * lies or tries to leave costs one image, whatever it leaves behind. This program is its own helper: TEST_DECODER says how it
 * behaves. */
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "server/decoder_internal.h"
#include "server/request.h"

/* A sanitizer's helper has neither filter nor limits. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CONFINED 0
#else
#define CONFINED 1
#endif

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
			wn_code ca = decoder_decode(here, &a, data, n, 56, 56, INT64_MAX, &ea);
			wn_code cb = decoder_decode(there, &b, data, n, 56, 56, INT64_MAX, &eb);
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
	assert_int_equal(decoder_decode(d, &img, data, len, 56, 56, INT64_MAX, &err), WN_INVALID);
	if (!strstr(err.message, message))
		fail_msg("%s: found \"%s\", expected \"%s\"", behaviour, err.message, message);
	assert_null(img.rgb);
	if (strcmp(behaviour, "lie") != 0) {
		/* A short timeout is one for well-behaved helpers too, if the machine is busy. */
		int tries = timeout_ns < THREAD.timeout_ns ? 100 : 1;
		for (err = (wn_error){0}; tries > 0; tries--, err = (wn_error){0})
			if (decoder_decode(d, &img, data, len, 56, 56, INT64_MAX, &err) == WN_OK)
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

static decoder *open_one(const char *behaviour, int64_t timeout_ns, char **data, size_t *len)
{
	decoder *d = open_isolated("", timeout_ns); /* skips where the helper after it could not be confined */
	decoder_close(&d);
	d = open_isolated(behaviour, timeout_ns);
	setenv("TEST_DECODER", "", 1);
	read_sample("good.png", data, len);
	return d;
}

static void expect_good(decoder *d, const char *data, size_t len)
{
	image img;
	wn_error err = {0};
	if (decoder_decode(d, &img, data, len, 56, 56, INT64_MAX, &err) != WN_OK)
		fail_msg("%s", err.message);
	assert_true(img.width > 1);
	decoder_release(d, &img);
}

#define SOON_NS ((int64_t)50000000)

static void a_deadline_ends_a_decode(void **state)
{
	char *data;
	size_t len;
	image img;
	wn_error err = {0};
	decoder *d = open_one("hang", 3600 * (int64_t)1000000000, &data, &len);
	assert_int_equal(decoder_decode(d, &img, data, len, 56, 56, monotonic_ns(), &err), WN_CANCELLED); /* before it began */
	assert_null(img.rgb);
	assert_int_equal(decoder_restarts(d), 0);
	assert_int_equal(decoder_decode(d, &img, data, len, 56, 56, monotonic_ns() + SOON_NS, &err), WN_CANCELLED);
	assert_null(img.rgb);
	expect_good(d, data, len);
	assert_int_equal(decoder_restarts(d), 1);
	free(data);
	decoder_close(&d);
}

static int child(void)
{
	char path[64];
	int pid = 0;
	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	FILE *children = fopen(path, "r");
	if (!children || fscanf(children, "%d", &pid) != 1)
		fail_msg("no helper in %s", path);
	fclose(children);
	return pid;
}

/* S: waiting; T: stopped. */
static void await_state(int pid, char wanted)
{
	for (char now = 'R'; now != wanted;) {
		char path[64];
		snprintf(path, sizeof path, "/proc/%d/stat", pid);
		FILE *f = fopen(path, "r");
		if (!f || fscanf(f, "%*d (%*[^)]) %c", &now) != 1)
			fail_msg("%s cannot be read", path);
		fclose(f);
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

static void a_helper_that_starts_slowly_is_not_started_twice(void **state)
{
	char *data;
	size_t len;
	image img;
	wn_error err = {0};
	decoder *d = open_one("hang", 3600 * (int64_t)1000000000, &data, &len);
	setenv("TEST_DECODER", "slow", 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(decoder_decode(d, &img, data, len, 56, 56, monotonic_ns() + SOON_NS, &err), WN_CANCELLED);
	await_state(child(), 'T');
	kill(child(), SIGCONT);
	expect_good(d, data, len);
	assert_int_equal(decoder_restarts(d), 1);
	free(data);
	decoder_close(&d);
}

static void answers_given_in_advance_are_not_taken(void **state)
{
	char *data;
	size_t len;
	decoder *d = open_one("ahead", THREAD.timeout_ns, &data, &len);
	await_state(child(), 'S'); /* its socket is full */
	expect_good(d, data, len);
	assert_int_equal(decoder_restarts(d), 1);
	free(data);
	decoder_close(&d);
}

/* It answers in turn, by what it sees in the shared memory, and takes nothing out of its socket, which fills up. */
static void a_helper_that_never_listens_holds_nobody_up(void **state)
{
	char *data;
	size_t len;
	decoder *d = open_one("deaf", THREAD.timeout_ns, &data, &len);
	for (int i = 0; i < 5000 && decoder_restarts(d) == 0; i++) {
		image img;
		wn_error err = {0};
		if (decoder_decode(d, &img, data, len, 56, 56, INT64_MAX, &err) != WN_OK)
			fail_msg("%s", err.message);
		decoder_release(d, &img);
	}
	assert_int_equal(decoder_restarts(d), 1);
	expect_good(d, data, len);
	free(data);
	decoder_close(&d);
}

/* Or waits for its parent to take note, which is somebody else's business. */
static bool is_dead(int pid)
{
	char path[64], now = 'Z';
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	FILE *f = fopen(path, "r");
	if (f && fscanf(f, "%*d (%*[^)]) %c", &now) != 1)
		now = 'Z';
	if (f)
		fclose(f);
	return now == 'Z' || now == 'X';
}

static void a_helper_does_not_outlive_a_server_that_is_killed(void **state)
{
	int ends[2], helper = 0, left = 30000;
	decoder *d = open_isolated("", THREAD.timeout_ns); /* may skip */
	decoder_close(&d);
	assert_int_equal(pipe(ends), 0);
	const pid_t server = fork();
	if (server == 0) {
		open_isolated("deaf", THREAD.timeout_ns); /* does not notice that its socket is closed */
		helper = child();
		_exit(write(ends[1], &helper, sizeof helper) == sizeof helper ? 0 : 1);
	}
	assert_int_equal(read(ends[0], &helper, sizeof helper), sizeof helper);
	assert_int_equal(waitpid(server, NULL, 0), server);
	for (; !is_dead(helper) && left > 0; left--)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	if (left == 0) {
		kill(helper, SIGKILL);
		fail_msg("helper %d is still there", helper);
	}
	close(ends[0]);
	close(ends[1]);
}

static void what_a_helper_leaves_in_the_memory_is_not_its_successors(void **state)
{
	expect_refusal("scribble", THREAD.timeout_ns, "crashed on this image");
}

static void a_helper_gets_no_more_memory_than_images_take(void **state)
{
	if (!CONFINED)
		skip();
	char *data;
	size_t len;
	image img;
	wn_error err = {0};
	decoder *d = open_one("allocate", THREAD.timeout_ns, &data, &len);
	if (decoder_decode(d, &img, data, len, 56, 56, INT64_MAX, &err) != WN_NOMEM)
		fail_msg("it got 16 GiB, or this: %s", err.message);
	free(data);
	decoder_close(&d);
}

/* ---- the image that takes most memory: 16-bit RGBA in Adam7's seven passes, all of it zeros ---- */

typedef struct bits {
	uint8_t *at;
	int used; /* of *at */
} bits;

/* From the code's highest bit on, as Huffman codes lie in a deflate stream. */
static void put_code(bits *b, unsigned code, int n)
{
	while (n-- > 0) {
		*b->at |= (uint8_t)((code >> n & 1) << b->used);
		b->at += ++b->used == 8;
		b->used &= 7;
	}
}

/* n zeros under the fixed codes: one, then copies of the 258 before. Returns the bytes written. */
static size_t deflate_zeros(uint8_t *out, size_t n)
{
	bits b = {out + 2, 0};
	out[0] = 0x78;
	out[1] = 0x01;
	put_code(&b, 6, 3);	       /* last block; fixed codes, whose two bits lie the other way round */
	for (; n % 258 > 0; n--)
		put_code(&b, 0x30, 8); /* a zero */
	for (; n > 0; n -= 258) {
		put_code(&b, 0xc5, 8); /* a copy of 258 bytes */
		put_code(&b, 0, 5);    /* from one byte before */
	}
	put_code(&b, 0, 7);
	return (size_t)(b.at - out) + 1 + 4; /* stb_image looks at no check sum of what it inflates */
}

static uint8_t *put_chunk(uint8_t *at, const char *type, size_t len)
{
	uint32_t crc = ~0u;
	for (int i = 0; i < 4; i++) {
		at[i] = (uint8_t)(len >> (24 - 8 * i));
		at[4 + i] = (uint8_t)type[i];
	}
	for (size_t i = 0; i < len + 4; i++) {
		crc ^= at[4 + i];
		for (int k = 0; k < 8; k++)
			crc = crc & 1 ? 0xEDB88320u ^ crc >> 1 : crc >> 1;
	}
	for (int i = 0; i < 4; i++)
		at[8 + len + (size_t)i] = (uint8_t)(~crc >> (24 - 8 * i));
	return at + 12 + len;
}

static size_t adam7_bytes(int side)
{
	static const int X0[] = {0, 4, 0, 2, 0, 1, 0}, Y0[] = {0, 0, 4, 0, 2, 0, 1}, DX[] = {8, 8, 4, 4, 2, 2, 1}, DY[] = {8, 8, 8, 4, 4, 2, 2};
	size_t n = 0;
	for (int p = 0; p < 7; p++)
		n += (size_t)((side - Y0[p] + DY[p] - 1) / DY[p]) * (1 + 8 * (size_t)((side - X0[p] + DX[p] - 1) / DX[p]));
	return n;
}

static uint8_t *make_largest_png(int side, size_t *len)
{
	static const uint8_t SIGNATURE[8] = {0x89, 'P', 'N', 'G', 0x0d, 0x0a, 0x1a, 0x0a};
	const size_t n = adam7_bytes(side);
	uint8_t *png = calloc(1, n / 100 + 4096), *at = png;
	assert_non_null(png);
	memcpy(at, SIGNATURE, 8);
	at += 8;
	const uint8_t header[13] = {0, 0, (uint8_t)(side >> 8), (uint8_t)side, 0, 0, (uint8_t)(side >> 8), (uint8_t)side, 16, 6, 0, 0, 1};
	memcpy(at + 8, header, 13);
	at = put_chunk(at, "IHDR", 13);
	at = put_chunk(at, "IDAT", deflate_zeros(at + 8, n));
	at = put_chunk(at, "IEND", 0);
	*len = (size_t)(at - png);
	return png;
}

#define LOW_LIMIT ((rlim_t)1 << 30)

/* The limits of the images alone come to more. */
static void a_lower_limit_found_is_kept_and_costs_no_isolation(void **state)
{
	if (!CONFINED)
		skip();
	char path[64], line[200], *data;
	size_t len;
	image img;
	unsigned long long soft = 0;
	wn_error err = {0};
	decoder_options opt = THREAD;
	decoder *d = NULL;
	opt.isolation = DECODE_IN_PROCESS;
	opt.limits.max_pixels = 64 << 20;
	setenv("TEST_DECODER", "low limit", 1);
	if (decoder_open(&d, &opt, &err) != WN_OK)
		fail_msg("%s", err.message);
	read_sample("good.png", &data, &len);
	if (decoder_decode(d, &img, data, len, 56, 56, INT64_MAX, &err) != WN_OK)
		fail_msg("%s", err.message);
	decoder_release(d, &img);
	assert_int_equal(decoder_restarts(d), 0);
	free(data);
	snprintf(path, sizeof path, "/proc/%d/limits", child());
	FILE *limits = fopen(path, "r");
	assert_non_null(limits);
	while (fgets(line, sizeof line, limits) && sscanf(line, "Max address space %llu", &soft) != 1)
		;
	fclose(limits);
	assert_int_equal(soft, LOW_LIMIT);
	decoder_close(&d);
}

static void the_largest_image_fits_a_helpers_memory(void **state)
{
	if (!CONFINED)
		skip();
	const int side = 3072;
	decoder_options opt = THREAD;
	decoder *d = open_isolated("", THREAD.timeout_ns); /* may skip */
	decoder_close(&d);
	image img;
	wn_error err = {0};
	size_t len;
	uint8_t *png = make_largest_png(side, &len);
	opt.isolation = DECODE_IN_PROCESS;
	opt.limits = (image_limits){.max_side = side, .max_pixels = (int64_t)side * side, .max_bytes = len};
	if (decoder_open(&d, &opt, &err) != WN_OK || decoder_decode(d, &img, png, len, 56, 56, INT64_MAX, &err) != WN_OK)
		fail_msg("%s", err.message);
	assert_int_equal(img.width, side);
	assert_int_equal(img.height, side);
	for (size_t i = 0; i < 3 * (size_t)side * (size_t)side; i += 4099)
		assert_int_equal(img.rgb[i], 0);
	decoder_release(d, &img);
	assert_int_equal(decoder_restarts(d), 0);
	free(png);
	decoder_close(&d);
}

static void helper_that_lies_is_not_believed(void **state)
{
	expect_refusal("lie", THREAD.timeout_ns, "cannot be decoded");
}

static void helper_cannot_leave(void **state)
{
	if (!CONFINED)
		skip();
	char message[64];
	snprintf(message, sizeof message, "signal %d", SIGSYS);
	expect_refusal("open", THREAD.timeout_ns, message);
	expect_refusal("socket", THREAD.timeout_ns, message);
	expect_refusal("execute", THREAD.timeout_ns, message);
	expect_refusal("fork", THREAD.timeout_ns, message);
	expect_refusal("write", THREAD.timeout_ns, message);
}

static void idle_helper_that_died_costs_nothing(void **state)
{
	decoder *d = open_isolated("", THREAD.timeout_ns);
	char *data;
	size_t len;
	image img;
	wn_error err = {0};
	read_sample("good.png", &data, &len);
	const int pid = child();
	kill(pid, SIGKILL);
	siginfo_t info;
	waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
	if (decoder_decode(d, &img, data, len, 56, 56, INT64_MAX, &err) != WN_OK)
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
	assert_int_equal(decoder_decode(d, &img, data, (4 << 20) + 1, 56, 56, INT64_MAX, &err), WN_TOO_LARGE);
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
	assert_int_equal(decoder_decode(d, &img, data, len, 56, 56, INT64_MAX, &err), WN_OK);
	decoder_release(d, &img);
	free(data);
	decoder_close(&d);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nobody is left */
}

/* ---- helpers that misbehave ---- */

/* Never touched, so it costs the machine nothing. */
static void allocate(decode_slot *slot)
{
	const size_t piece = (size_t)16 << 20;
	size_t got = 0;
	while (got < (size_t)16 << 30 && mmap(NULL, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		got += piece;
	slot->answer = (struct decode_answer){.code = got < (size_t)16 << 30 ? WN_NOMEM : WN_OK, .width = 1, .height = 1};
}

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
	} else if (strcmp(how, "scribble") == 0) {
		memset(slot, 0xff, sizeof *slot);
		_exit(1);
	} else if (strcmp(how, "allocate") == 0) {
		allocate(slot);
	}
}

/* Speaks before it is asked, as long as anybody takes it. */
static void speak_ahead(decode_slot *slot)
{
	slot->answer = (struct decode_answer){.code = WN_OK, .width = 1, .height = 1};
	for (char byte = 'r'; send(HELPER_SOCKET, &byte, 1, MSG_NOSIGNAL) == 1;)
		;
}

/* Sees in the memory that there is something to answer. */
static void answer_without_listening(volatile decode_slot *slot)
{
	for (char byte = 'r'; send(HELPER_SOCKET, &byte, 1, MSG_NOSIGNAL) == 1;) {
		while (slot->len == 0)
			;
		slot->len = 0;
		slot->answer.code = WN_OK;
		slot->answer.width = slot->answer.height = 1;
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
	if (slot == MAP_FAILED || (!needs_calls && decode_helper_confine(slot, &err) != WN_OK))
		return HELPER_EXIT(err.code);
	if (strcmp(how, "ahead") == 0)
		speak_ahead(slot);
	else if (strcmp(how, "deaf") == 0)
		answer_without_listening(slot);
	while (send(HELPER_SOCKET, &byte, 1, MSG_NOSIGNAL) == 1 && recv(HELPER_SOCKET, &byte, 1, 0) == 1)
		misbehave(how, slot);
	_exit(0);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], DECODE_HELPER_OPTION) == 0) {
		const char *how = getenv("TEST_DECODER");
		if (how && strcmp(how, "slow") == 0)
			raise(SIGSTOP);
		else if (how && strcmp(how, "low limit") == 0)
			setrlimit(RLIMIT_AS, &(struct rlimit){LOW_LIMIT, LOW_LIMIT});
		else if (how && *how)
			return bad_helper(how);
		return decode_helper_main();
	}
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(helper_gives_the_same_as_this_process),
	    cmocka_unit_test(helper_that_crashes_costs_one_image),
	    cmocka_unit_test(helper_that_hangs_is_replaced),
	    cmocka_unit_test(a_deadline_ends_a_decode),
	    cmocka_unit_test(a_helper_that_starts_slowly_is_not_started_twice),
	    cmocka_unit_test(answers_given_in_advance_are_not_taken),
	    cmocka_unit_test(a_helper_that_never_listens_holds_nobody_up),
	    cmocka_unit_test(a_helper_does_not_outlive_a_server_that_is_killed),
	    cmocka_unit_test(what_a_helper_leaves_in_the_memory_is_not_its_successors),
	    cmocka_unit_test(a_helper_gets_no_more_memory_than_images_take),
	    cmocka_unit_test(a_lower_limit_found_is_kept_and_costs_no_isolation),
	    cmocka_unit_test(the_largest_image_fits_a_helpers_memory),
	    cmocka_unit_test(helper_that_lies_is_not_believed),
	    cmocka_unit_test(helper_cannot_leave),
	    cmocka_unit_test(auto_does_without_a_helper),
	    cmocka_unit_test(idle_helper_that_died_costs_nothing),
	    cmocka_unit_test(file_beyond_the_limit_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
