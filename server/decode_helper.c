/* decode_helper.c: the helper's side of decoder.h: a loop that decodes what lies in the shared memory.
 *
 * One thread. It is a new program image, so nothing of the server's memory is in it; before it looks at the first byte it gives
 * up everything else: descriptors, core dumps, privileges, memory beyond what an image takes, and all system calls but those of
 * memory and of its one socket. */
#include "server/decoder_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A sanitizer's runtime makes system calls of its own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNDER_SANITIZER 1
#else
#define UNDER_SANITIZER 0
#endif

#ifdef HAVE_SECCOMP

#include <seccomp.h>

static int add_rules(scmp_filter_ctx ctx)
{
	static const int ALLOWED[] = {SCMP_SYS(brk),	   SCMP_SYS(munmap),	    SCMP_SYS(mremap), SCMP_SYS(madvise),
				      SCMP_SYS(futex),	   SCMP_SYS(clock_gettime), SCMP_SYS(getrandom), SCMP_SYS(exit),
				      SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(restart_syscall)};
	for (size_t i = 0; i < sizeof ALLOWED / sizeof ALLOWED[0]; i++)
		if (seccomp_rule_add(ctx, SCMP_ACT_ALLOW, ALLOWED[i], 0) != 0)
			return -1;
	/* Memory of its own only, and none that can be executed. */
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
				SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS)) ||
	       seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) ||
	       seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(recvfrom), 1, SCMP_A0(SCMP_CMP_EQ, HELPER_SOCKET)) ||
	       seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(sendto), 1, SCMP_A0(SCMP_CMP_EQ, HELPER_SOCKET));
}

static wn_code filter_system_calls(wn_error *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int bad = !ctx || add_rules(ctx) != 0 || seccomp_load(ctx) != 0;
	if (ctx)
		seccomp_release(ctx);
	return bad ? wn_fail(err, WN_IO, "seccomp: cannot confine the image decoder") : WN_OK;
}

#else

static wn_code filter_system_calls(wn_error *err)
{
	return wn_fail(err, WN_UNSUPPORTED, "winnow-serve was built without libseccomp");
}

#endif

bool decode_helper_can_be_confined(void)
{
#ifdef HAVE_SECCOMP
	return true;
#else
	return UNDER_SANITIZER;
#endif
}

/* What image_decode_for needs at most. A PNG of 16-bit RGBA, interlaced, is the worst: stb_image inflates it into up to 16 bytes a
 * pixel, beside which the lines in order take 8 and one of the seven passes 4. The file is copied twice; the rest is for what
 * malloc cannot use again. */
#define BYTES_A_PIXEL 32
#define FILE_COPIES   4
#define MEMORY_SPARE  ((uint64_t)64 << 20)
#define MOST_PIXELS   ((uint64_t)128 << 20) /* image.h takes no more, whatever the limits say */

/* On top of what is mapped by now: the program, its libraries, the shared memory. */
static wn_code limit_memory(const image_limits *l, wn_error *err)
{
	unsigned long long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	const bool known = f && fscanf(f, "%llu", &pages) == 1;
	if (f)
		fclose(f);
	if (!known)
		return wn_fail(err, WN_IO, "cannot read /proc/self/statm, to limit the image decoder's memory");
	const uint64_t pixels = (uint64_t)l->max_pixels < MOST_PIXELS ? (uint64_t)l->max_pixels : MOST_PIXELS;
	rlim_t most = pages * (uint64_t)sysconf(_SC_PAGESIZE) + pixels * BYTES_A_PIXEL + l->max_bytes * FILE_COPIES + MEMORY_SPARE;
	struct rlimit found;
	if (getrlimit(RLIMIT_AS, &found) == 0 && found.rlim_max < most)
		most = found.rlim_max; /* whoever started the server allows less: that is a limit too, and not ours to raise */
	if (setrlimit(RLIMIT_AS, &(struct rlimit){most, most}) != 0)
		return wn_fail(err, WN_IO, "cannot limit the image decoder's memory: %s", strerror(errno));
	return WN_OK;
}

wn_code decode_helper_confine(const decode_slot *slot, wn_error *err)
{
	const struct rlimit none = {0, 0};
	/* A sanitizer's shadow is larger than any limit. */
	wn_code code = UNDER_SANITIZER ? WN_OK : limit_memory(&slot->limits, err);
	if (code != WN_OK)
		return code;
	syscall(SYS_close_range, HELPER_MEMORY, ~0u, 0); /* the memory is mapped by now */
	setrlimit(RLIMIT_CORE, &none);
	setrlimit(RLIMIT_FSIZE, &none);
	setrlimit(RLIMIT_NPROC, &none);
	/* PDEATHSIG: with the thread that owns the decoder, should it be killed; our sockets' end is only heard by who listens. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || prctl(PR_SET_DUMPABLE, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return wn_fail(err, WN_IO, "prctl: %s", strerror(errno));
	return UNDER_SANITIZER ? WN_OK : filter_system_calls(err);
}

static void decode(decode_slot *slot)
{
	image img = {0};
	wn_error err = {0};
	const uint8_t *input = (const uint8_t *)slot + slot->input_offset;
	wn_code code = image_decode_for(&img, input, slot->len, &slot->limits, slot->width, slot->height, &err);
	size_t bytes = 3 * (size_t)img.width * (size_t)img.height;
	if (code == WN_OK && bytes > slot->pixels_size)
		code = wn_fail(&err, WN_TOO_LARGE, "image is larger than the limit");
	if (code == WN_OK)
		memcpy((uint8_t *)slot + slot->pixels_offset, img.rgb, bytes);
	slot->answer.code = (int32_t)code;
	slot->answer.width = img.width;
	slot->answer.height = img.height;
	memcpy(slot->answer.beyond, img.beyond, sizeof img.beyond);
	snprintf(slot->answer.message, sizeof slot->answer.message, "%s", err.message);
	image_free(&img);
}

int decode_helper_main(void)
{
	struct stat st;
	wn_error err = {0};
	char byte = 'r';
	if (fstat(HELPER_MEMORY, &st) != 0 || (size_t)st.st_size < sizeof(decode_slot))
		return 1; /* not started by a decoder */
	decode_slot *slot = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, HELPER_MEMORY, 0);
	if (slot == MAP_FAILED)
		return 1;
	if (decode_helper_confine(slot, &err) != WN_OK) {
		fprintf(stderr, "winnow-serve: %s\n", err.message);
		return HELPER_EXIT(err.code);
	}
	while (send(HELPER_SOCKET, &byte, 1, MSG_NOSIGNAL) == 1 && recv(HELPER_SOCKET, &byte, 1, 0) == 1)
		decode(slot);
	_exit(0); /* the server closed its end; there is nothing to clean up, and no system call to do it with */
}
