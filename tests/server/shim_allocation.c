/* LD_PRELOAD: the k-th allocation that winnow's own code (or jansson or libyaml for it) asks for fails.
 *
 * SHIM_CONTROL names a file of three int64: how many allocations until one fails (0: none), how many there were, how many
 * failed. The test maps and changes it while the program runs. Callers are told by their return address: what the C library,
 * OpenMP, oneDNN or libmicrohttpd allocate for themselves is theirs to survive. */
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static struct control {
	atomic_int_fast64_t countdown, calls, failed;
} *control;

static struct range {
	uintptr_t from, to;
} ranges[16];
static int num_ranges;

static int add_ranges(struct dl_phdr_info *info, size_t size, void *data)
{
	int *first = data;
	int ours = *first || strstr(info->dlpi_name, "libjansson") || strstr(info->dlpi_name, "libyaml");
	*first = 0; /* the program comes first */
	for (int i = 0; ours && i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		if (p->p_type == PT_LOAD && (p->p_flags & PF_X) && num_ranges < 16)
			ranges[num_ranges++] =
			    (struct range){info->dlpi_addr + p->p_vaddr, info->dlpi_addr + p->p_vaddr + p->p_memsz};
	}
	return 0;
}

__attribute__((constructor)) static void set_up(void)
{
	const char *path = getenv("SHIM_CONTROL");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	void *p = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	int first = 1;
	dl_iterate_phdr(add_ranges, &first);
	if (p != MAP_FAILED)
		control = p;
}

static int fails(void *caller)
{
	uintptr_t at = (uintptr_t)caller;
	int ours = 0;
	if (!control)
		return 0;
	for (int i = 0; i < num_ranges; i++)
		ours |= at >= ranges[i].from && at < ranges[i].to;
	if (!ours)
		return 0;
	atomic_fetch_add(&control->calls, 1);
	if (atomic_load(&control->countdown) <= 0 || atomic_fetch_sub(&control->countdown, 1) != 1)
		return 0;
	atomic_fetch_add(&control->failed, 1);
	errno = ENOMEM;
	return 1;
}

#define FAILS fails(__builtin_return_address(0))

void *malloc(size_t n) { return FAILS ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return FAILS ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return FAILS ? NULL : __libc_realloc(p, n); }
void *aligned_alloc(size_t alignment, size_t n) { return FAILS ? NULL : __libc_memalign(alignment, n); }

int posix_memalign(void **out, size_t alignment, size_t n)
{
	void *p = FAILS ? NULL : __libc_memalign(alignment, n);
	if (!p)
		return ENOMEM;
	*out = p;
	return 0;
}

char *strndup(const char *s, size_t n)
{
	size_t len = strnlen(s, n);
	char *copy = FAILS ? NULL : __libc_malloc(len + 1);
	if (copy) {
		memcpy(copy, s, len);
		copy[len] = 0;
	}
	return copy;
}

char *strdup(const char *s)
{
	size_t len = strlen(s);
	char *copy = FAILS ? NULL : __libc_malloc(len + 1);
	return copy ? memcpy(copy, s, len + 1) : NULL;
}
