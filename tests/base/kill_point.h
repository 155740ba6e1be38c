/* kill_point.h: this program's file system calls, counted, so that a test can do something at each of them: be killed, above all.
 *
 * Including it puts functions of its own in place of libc's for the whole program, the linked libraries included; they count and
 * then do the same. Random kills find the wide gaps; this finds every gap. */
#ifndef WINNOW_TESTS_KILL_POINT_H
#define WINNOW_TESTS_KILL_POINT_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
	int count;          /* calls so far */
	int at;             /* before this one (from 1; 0: none) ... */
	void (*then)(void); /* ... this is called; NULL: SIGKILL */
	bool no_exchange;   /* as on a file system without RENAME_EXCHANGE */
	ino_t synced;       /* the file of the last fsync, and its size then */
	off_t synced_bytes;
} calls;

static inline void count_call(void)
{
	if (++calls.count != calls.at)
		return;
	if (calls.then)
		calls.then();
	else
		kill(getpid(), SIGKILL);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	count_call();
	if (calls.no_exchange && (flags & RENAME_EXCHANGE)) {
		errno = EINVAL;
		return -1;
	}
	return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) { return renameat2(from_dir, from, to_dir, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int at, const char *path, int flags)
{
	count_call();
	return (int)syscall(SYS_unlinkat, at, path, flags);
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int fsync(int fd)
{
	struct stat st;
	count_call();
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		calls.synced = st.st_ino;
		calls.synced_bytes = st.st_size;
	}
	return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	count_call();
	return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
	count_call();
	return syscall(SYS_pwrite64, fd, data, len, at);
}

/* Runs `work` in a child that is killed at its k-th call. False when it made fewer and came to its end. */
static inline bool is_killed_at(int k, void (*work)(void))
{
	int status;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		calls.count = 0;
		calls.at = k;
		work();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return true;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return false;
}

#endif
