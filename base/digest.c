/* digest.c: see digest.h. nettle's SHA-256 over memory or streamed files. */
#include "base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nettle/sha2.h>

#define PREFIX "sha256:"
#define PREFIX_LEN (sizeof PREFIX - 1)

static void finish(char out[DIGEST_SIZE], struct sha256_ctx *ctx)
{
	static const char hex[] = "0123456789abcdef";
	uint8_t raw[SHA256_DIGEST_SIZE];
	sha256_digest(ctx, sizeof raw, raw);
	memcpy(out, PREFIX, PREFIX_LEN);
	for (size_t i = 0; i < sizeof raw; i++) {
		out[PREFIX_LEN + 2 * i] = hex[raw[i] >> 4];
		out[PREFIX_LEN + 2 * i + 1] = hex[raw[i] & 15];
	}
	out[PREFIX_LEN + 2 * sizeof raw] = '\0';
}

void digest_memory(char out[DIGEST_SIZE], const void *data, size_t len)
{
	struct sha256_ctx ctx;
	sha256_init(&ctx);
	if (len > 0)
		sha256_update(&ctx, len, data);
	finish(out, &ctx);
}

static wn_code update_from_file(struct sha256_ctx *ctx, const char *path, wn_error *err)
{
	unsigned char buf[64 * 1024];
	struct stat st;
	wn_code rc = WN_OK;

	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return wn_fail(err, errno == ENOENT || errno == ENOTDIR ? WN_NOT_FOUND : WN_IO, "%s: cannot open: %s", path,
		               strerror(errno));
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		rc = wn_fail(err, WN_INVALID, "%s: expected a regular file", path);
		goto out;
	}
	for (;;) {
		ssize_t n = read(fd, buf, sizeof buf);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			rc = wn_fail(err, WN_IO, "%s: cannot read: %s", path, strerror(errno));
			goto out;
		}
		if (n == 0)
			break;
		sha256_update(ctx, (size_t)n, buf);
	}
out:
	close(fd);
	return rc;
}

wn_code digest_files(char out[DIGEST_SIZE], const char *const *paths, size_t count, wn_error *err)
{
	struct sha256_ctx ctx;
	out[0] = '\0';
	sha256_init(&ctx);
	for (size_t i = 0; i < count; i++) {
		wn_code rc = update_from_file(&ctx, paths[i], err);
		if (rc != WN_OK)
			return rc;
	}
	finish(out, &ctx);
	return WN_OK;
}

wn_code digest_file(char out[DIGEST_SIZE], const char *path, wn_error *err)
{
	return digest_files(out, &path, 1, err);
}

bool digest_is_valid(const char *s)
{
	return strlen(s) == DIGEST_SIZE - 1 && strncmp(s, PREFIX, PREFIX_LEN) == 0 &&
	       strspn(s + PREFIX_LEN, "0123456789abcdef") == DIGEST_SIZE - 1 - PREFIX_LEN;
}
