/* decode_helper.c: the helper's side of decoder.h: a loop that decodes what lies in the shared memory.
 *
 * One thread. It is a new program image, so nothing of the server's memory is in it; before it looks at the first byte it gives
 * up everything else: descriptors, core dumps, privileges, and all system calls but those of memory and of its one socket. */
#include "server/decoder_internal.h"

#include <errno.h>
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

wn_code decode_helper_confine(wn_error *err)
{
	const struct rlimit none = {0, 0};
	syscall(SYS_close_range, HELPER_MEMORY, ~0u, 0); /* the memory is mapped by now */
	setrlimit(RLIMIT_CORE, &none);
	setrlimit(RLIMIT_FSIZE, &none);
	setrlimit(RLIMIT_NPROC, &none);
	if (prctl(PR_SET_DUMPABLE, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
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
	if (decode_helper_confine(&err) != WN_OK) {
		fprintf(stderr, "winnow-serve: %s\n", err.message);
		return HELPER_EXIT(err.code);
	}
	while (send(HELPER_SOCKET, &byte, 1, MSG_NOSIGNAL) == 1 && recv(HELPER_SOCKET, &byte, 1, 0) == 1)
		decode(slot);
	_exit(0); /* the server closed its end; there is nothing to clean up, and no system call to do it with */
}
