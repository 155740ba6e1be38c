/* decoder.c: our side of decoder.h; the helper's is decode_helper.c. */
#include "server/decoder_internal.h"
#include "server/log.h"
#include "server/request.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread.h"

#define PAGE             ((size_t)4096)
#define START_TIMEOUT_NS (30 * (int64_t)1000000000)

extern char **environ;

struct decoder {
	decoder_options opt;
	bool isolated;
	int socket, memory; /* -1 = none */
	pid_t helper;       /* 0 = none */
	bool ready;         /* it has said that it is confined */
	int64_t started_ns;
	decode_slot *slot;
	size_t size;
	atomic_uint_fast64_t starts;
};

/* ---- the helper's life ---- */

static void end_helper(decoder *d, int *status)
{
	if (d->socket >= 0)
		close(d->socket);
	d->socket = -1;
	if (d->helper > 0) {
		kill(d->helper, SIGKILL);
		while (waitpid(d->helper, status, 0) < 0 && errno == EINTR)
			;
	}
	d->helper = 0;
}

/* The environment without our keys. malloc'ed, its strings are not. */
static char **environment(void)
{
	size_t n = 0, kept = 0;
	while (environ[n])
		n++;
	char **e = calloc(n + 1, sizeof *e);
	for (size_t i = 0; e && i < n; i++)
		if (strncmp(environ[i], "WINNOW_", 7) != 0)
			e[kept++] = environ[i];
	return e;
}

/* Returns an errno. Its own process group: a Ctrl-C is for us, who drain. */
static int spawn(pid_t *pid, int socket, int memory, char **env)
{
	char *argv[] = {"winnow-decode", DECODE_HELPER_OPTION, NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none;
	sigemptyset(&none);
	int e = posix_spawn_file_actions_init(&files);
	if (e != 0)
		return e;
	if ((e = posix_spawnattr_init(&attr)) != 0) {
		posix_spawn_file_actions_destroy(&files);
		return e;
	}
	if ((e = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0)) == 0 &&
	    (e = posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0)) == 0 &&
	    (e = posix_spawn_file_actions_adddup2(&files, socket, HELPER_SOCKET)) == 0 &&
	    (e = posix_spawn_file_actions_adddup2(&files, memory, HELPER_MEMORY)) == 0 &&
	    (e = posix_spawnattr_setsigmask(&attr, &none)) == 0 && (e = posix_spawnattr_setpgroup(&attr, 0)) == 0 &&
	    (e = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP)) == 0)
		e = posix_spawn(pid, "/proc/self/exe", &files, &attr, argv, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	return e;
}

typedef enum heard { HEARD_ANSWER, HEARD_NOTHING, HEARD_END } heard;

/* What the helper says until then; at least what it has said by now. */
static heard hear(decoder *d, int64_t until_ns)
{
	struct pollfd p = {.fd = d->socket, .events = POLLIN};
	int n;
	do { /* signals are blocked in workers: at most a debugger's */
		const int64_t left = until_ns - monotonic_ns();
		const struct timespec t = timespec_of_ns(left > 0 ? left : 0);
		n = ppoll(&p, 1, &t, NULL);
	} while (n < 0 && errno == EINTR);
	char byte;
	if (n <= 0)
		return HEARD_NOTHING;
	return recv(d->socket, &byte, 1, MSG_DONTWAIT) == 1 ? HEARD_ANSWER : HEARD_END;
}

static size_t whole_pages(size_t n) { return (n + PAGE - 1) / PAGE * PAGE; }
static size_t input_offset(void) { return whole_pages(sizeof(decode_slot)); }
static size_t pixels_offset(const decoder *d) { return input_offset() + whole_pages(d->opt.limits.max_bytes); }
static size_t pixels_size(const decoder *d) { return 3 * (size_t)d->opt.limits.max_pixels; }

/* While there is no helper: the last one could write here. We never read it back. */
static void write_header(decoder *d)
{
	d->slot->size = d->size;
	d->slot->input_offset = input_offset();
	d->slot->pixels_offset = pixels_offset(d);
	d->slot->pixels_size = pixels_size(d);
	d->slot->limits = d->opt.limits;
}

static wn_code start_helper(decoder *d, wn_error *err)
{
	write_header(d);
	d->ready = false;
	d->started_ns = monotonic_ns();
	/* Descriptors of ours that are in the way of the helper's numbers are moved by the kernel only in this order: both
	 * ends above HELPER_MEMORY. */
	int ends[2], high[2] = {-1, -1};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return wn_fail(err, WN_IO, "cannot start an image decoder: %s", strerror(errno));
	char **env = environment();
	high[0] = fcntl(ends[1], F_DUPFD_CLOEXEC, HELPER_MEMORY + 1);
	high[1] = fcntl(d->memory, F_DUPFD_CLOEXEC, HELPER_MEMORY + 1);
	int e = !env ? ENOMEM : high[0] < 0 || high[1] < 0 ? errno : spawn(&d->helper, high[0], high[1], env);
	free(env);
	close(ends[1]);
	for (int i = 0; i < 2; i++)
		if (high[i] >= 0)
			close(high[i]);
	d->socket = ends[0];
	if (e != 0) {
		d->helper = 0;
		end_helper(d, NULL);
		return wn_fail(err, WN_IO, "cannot start an image decoder: %s", strerror(e));
	}
	atomic_fetch_add(&d->starts, 1);
	return WN_OK;
}

/* It says a byte when it is confined. WN_CANCELLED: not by until_ns; it goes on starting, for the next image. */
static wn_code await_helper(decoder *d, int64_t until_ns, wn_error *err)
{
	const int64_t give_up_ns = d->started_ns + START_TIMEOUT_NS;
	int status = 0;
	if (d->ready)
		return WN_OK;
	const heard h = hear(d, until_ns < give_up_ns ? until_ns : give_up_ns);
	d->ready = h == HEARD_ANSWER;
	if (d->ready)
		return WN_OK;
	if (h == HEARD_NOTHING && until_ns < give_up_ns)
		return wn_fail(err, WN_CANCELLED, "the image decoder is being started");
	end_helper(d, &status);
	if (WIFEXITED(status) && WEXITSTATUS(status) == HELPER_EXIT(WN_UNSUPPORTED))
		return wn_fail(err, WN_UNSUPPORTED, "the image decoder cannot be confined");
	return wn_fail(err, WN_IO, "the image decoder did not start (status %d)", status);
}

/* ---- opening ---- */

static wn_code open_memory(decoder *d, wn_error *err)
{
	d->size = pixels_offset(d) + whole_pages(pixels_size(d));
	/* Pages come into being as they are written: a small image takes little of this. */
	d->memory = memfd_create("winnow-decode", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (d->memory < 0 || ftruncate(d->memory, (off_t)d->size) != 0 ||
	    fcntl(d->memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return wn_fail(err, WN_IO, "cannot create the image decoder's memory of %zu bytes: %s", d->size, strerror(errno));
	void *p = mmap(NULL, d->size, PROT_READ | PROT_WRITE, MAP_SHARED, d->memory, 0);
	if (p == MAP_FAILED)
		return wn_fail(err, WN_NOMEM, "cannot map the image decoder's memory of %zu bytes: %s", d->size, strerror(errno));
	d->slot = p;
	return WN_OK;
}

static wn_code isolate(decoder *d, wn_error *err)
{
	if (!decode_helper_can_be_confined())
		return wn_fail(err, WN_UNSUPPORTED, "decode.isolation: winnow-serve was built without libseccomp");
	wn_code code = open_memory(d, err);
	if (code == WN_OK)
		code = start_helper(d, err);
	if (code == WN_OK)
		code = await_helper(d, INT64_MAX, err);
	d->isolated = code == WN_OK;
	return code;
}

static void end_isolation(decoder *d)
{
	end_helper(d, NULL);
	if (d->slot)
		munmap(d->slot, d->size);
	if (d->memory >= 0)
		close(d->memory);
	d->slot = NULL;
	d->memory = -1;
}

decoder_options decoder_options_of(const server_config *c)
{
	return (decoder_options){
	    .isolation = (decode_isolation)c->decode_isolation,
	    .limits = {.max_side = c->image_side, .max_pixels = c->image_pixels, .max_bytes = c->max_image},
	    .timeout_ns = c->decode_timeout_ns};
}

bool decoder_uses_helper(decode_isolation isolation)
{
	return isolation == DECODE_IN_PROCESS || (isolation == DECODE_AUTO && decode_helper_can_be_confined());
}

wn_code decoder_open(decoder **out, const decoder_options *opt, wn_error *err)
{
	decoder *d = *out = calloc(1, sizeof *d);
	if (!d)
		return wn_fail(err, WN_NOMEM, "out of memory for an image decoder");
	d->opt = *opt;
	d->socket = d->memory = -1;
	if (!decoder_uses_helper(opt->isolation))
		return WN_OK;
	wn_error why = {0};
	wn_code code = isolate(d, &why);
	if (code == WN_OK)
		return WN_OK;
	if (opt->isolation == DECODE_AUTO) {
		log_warning("images are decoded in this process: %s", why.message);
		end_isolation(d);
		return WN_OK;
	}
	decoder_close(out);
	return wn_fail(err, code, "%s", why.message);
}

void decoder_close(decoder **dp)
{
	decoder *d = *dp;
	if (!d)
		return;
	*dp = NULL;
	end_isolation(d);
	free(d);
}

/* ---- decoding ---- */

typedef struct order {
	const void *file;
	size_t len;
	int width, height; /* wanted */
	int64_t until_ns;
} order;

/* Whether the helper took it. An idle one has nothing to say and room in its socket: any other has died, or is somebody else by
 * now, who answers for images that he has not seen, or would let us wait for ever. */
static bool give(decoder *d, const order *o)
{
	char byte;
	if (recv(d->socket, &byte, 1, MSG_DONTWAIT) >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
		return false;
	memcpy((uint8_t *)d->slot + input_offset(), o->file, o->len);
	d->slot->len = o->len;
	d->slot->width = o->width;
	d->slot->height = o->height;
	return send(d->socket, "d", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

/* Hands the image over. A helper that died while it was idle died of something else: a new one gets the image. */
static wn_code hand_over(decoder *d, const order *o, wn_error *err)
{
	for (int tries = 0; tries < 2; tries++) {
		const bool new = d->helper == 0;
		wn_error why = {0};
		wn_code code = new ? start_helper(d, &why) : WN_OK;
		if (code == WN_OK)
			code = await_helper(d, o->until_ns, &why);
		if (code == WN_OK && monotonic_ns() >= o->until_ns) /* nobody would wait for what it does */
			code = wn_fail(&why, WN_CANCELLED, "the time for decoding is over");
		if (code == WN_OK && give(d, o))
			return WN_OK;
		if (code == WN_CANCELLED || (new && code != WN_OK))
			return wn_fail(err, code, "%s", why.message);
		end_helper(d, NULL);
	}
	return wn_fail(err, WN_IO, "the image decoder does not listen");
}

/* The helper's answer, none of which is believed: it may be somebody else by now. */
wn_code decode_answer_read(image *out, const struct decode_answer *answer, const image_limits *limits, uint8_t *rgb, wn_error *err)
{
	struct decode_answer a;
	memcpy(&a, answer, sizeof a); /* once: it can still change there */
	a.message[sizeof a.message - 1] = 0;
	for (char *p = a.message; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			*p = '?';
	*out = (image){0};
	if (a.code == WN_INVALID || a.code == WN_UNSUPPORTED || a.code == WN_TOO_LARGE || a.code == WN_NOMEM)
		return wn_fail(err, (wn_code)a.code, "%s", a.message);
	bool good = a.code == WN_OK && a.width >= 1 && a.height >= 1 && a.width <= 65535 && a.height <= 65535 &&
		    (uint64_t)a.width * (uint64_t)a.height <= (uint64_t)limits->max_pixels;
	for (int i = 0; i < 4; i++)
		good = good && a.beyond[i] >= 0 && a.beyond[i] < 1; /* nor NaN */
	/* What is left between the edges is a picture. */
	good = good && a.beyond[0] + a.beyond[2] < (float)a.width && a.beyond[1] + a.beyond[3] < (float)a.height;
	if (!good)
		return wn_fail(err, WN_INVALID, "the image cannot be decoded");
	*out = (image){.width = a.width, .height = a.height, .rgb = rgb};
	memcpy(out->beyond, a.beyond, sizeof out->beyond);
	return WN_OK;
}

/* *killed: the helper was killed from outside, which is not the image's doing. */
static wn_code try_decode(decoder *d, image *out, const order *o, bool *killed, wn_error *err)
{
	*killed = false;
	wn_code code = hand_over(d, o, err);
	if (code != WN_OK)
		return code;
	const int64_t patience_ns = monotonic_ns() + d->opt.timeout_ns;
	const heard h = hear(d, o->until_ns < patience_ns ? o->until_ns : patience_ns);
	if (h == HEARD_ANSWER)
		return decode_answer_read(out, &d->slot->answer, &d->opt.limits, (uint8_t *)d->slot + pixels_offset(d), err);
	/* It crashed on this image, or is busy with it for too long. */
	int status = 0;
	end_helper(d, &status); /* one that is gone already is only waited for */
	if (h == HEARD_NOTHING) {
		start_helper(d, NULL); /* while this image is refused; should it fail, the next image tries again, and says why */
		if (o->until_ns < patience_ns)
			return wn_fail(err, WN_CANCELLED, "decoding was not done in time");
		return wn_fail(err, WN_INVALID, "decoding took longer than %.3g s", (double)d->opt.timeout_ns / 1e9);
	}
	int signal_number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	*killed = signal_number == SIGKILL;
	return wn_fail(err, WN_INVALID, "the decoder crashed on this image (signal %d)", signal_number);
}

static wn_code decode_isolated(decoder *d, image *out, const order *o, wn_error *err)
{
	if (o->len > d->opt.limits.max_bytes)
		return wn_fail(err, WN_TOO_LARGE, "image file of %zu bytes, the limit is %zu", o->len, d->opt.limits.max_bytes);
	bool killed;
	wn_error first = {0};
	wn_code code = try_decode(d, out, o, &killed, &first);
	if (killed)
		return try_decode(d, out, o, &killed, err);
	return code == WN_OK ? code : wn_fail(err, code, "%s", first.message);
}

wn_code decoder_decode(decoder *d, image *out, const void *file, size_t len, int width, int height, int64_t until_ns,
		       wn_error *err)
{
	*out = (image){0};
	if (d->isolated)
		return decode_isolated(d, out, &(order){file, len, width, height, until_ns}, err);
	return image_decode_for(out, file, len, &d->opt.limits, width, height, err);
}

void decoder_release(decoder *d, image *img)
{
	if (d->isolated)
		*img = (image){0};
	else
		image_free(img);
}

uint64_t decoder_restarts(const decoder *d)
{
	uint64_t n = atomic_load(&((decoder *)d)->starts);
	return n > 0 ? n - 1 : 0;
}
