/* keys.c: see keys.h. */
#include "server/keys.h"

#include <stdlib.h>
#include <string.h>

#include <nettle/memops.h>
#include <nettle/sha2.h>

#include "base/file.h"

static void digest_key(uint8_t out[32], const char *key, size_t len)
{
	struct sha256_ctx ctx;
	sha256_init(&ctx);
	sha256_update(&ctx, len, (const uint8_t *)key);
	sha256_digest(&ctx, 32, out);
}

static wn_code add_key(key_set *k, const char *where, const char *key, size_t len, wn_error *err)
{
	if (len < KEY_MIN_LENGTH || len > KEY_MAX_LENGTH)
		return wn_fail(err, WN_INVALID, "%s: found a key of %zu characters, expected %d to %d", where, len,
			       KEY_MIN_LENGTH, KEY_MAX_LENGTH);
	for (size_t i = 0; i < len; i++)
		if (key[i] <= 0x20 || key[i] >= 0x7f)
			return wn_fail(err, WN_INVALID, "%s: found a character that no HTTP header can carry in a key",
				       where);
	if (k->count == KEYS_MAX)
		return wn_fail(err, WN_TOO_LARGE, "%s: found more than %d keys", where, KEYS_MAX);
	digest_key(k->digests[k->count++], key, len);
	return WN_OK;
}

static wn_code add_file(key_set *k, const char *path, wn_error *err)
{
	char *text = NULL;
	size_t len;
	wn_code code = file_read(path, 65536, &text, &len, err);
	if (code != WN_OK)
		return code;
	for (char *line = text, *next; code == WN_OK && line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		line += strspn(line, " \t\r");
		size_t n = strcspn(line, " \t\r");
		if (n > 0 && line[0] != '#')
			code = add_key(k, path, line, n, err);
	}
	if (code == WN_OK && k->count == 0)
		code = wn_fail(err, WN_INVALID, "%s: found no key, expected one per line", path);
	explicit_bzero(text, len);
	free(text);
	return code;
}

wn_code key_set_load(key_set *k, const char *what, const char *value, const char *file, const char *env, wn_error *err)
{
	memset(k, 0, sizeof *k);
	const char *from_env = getenv(env);
	if (from_env && *from_env)
		return add_key(k, env, from_env, strlen(from_env), err);
	if (*value)
		return add_key(k, what, value, strlen(value), err);
	return *file ? add_file(k, file, err) : WN_OK;
}

bool key_set_contains(const key_set *k, const char *presented)
{
	uint8_t digest[32];
	digest_key(digest, presented, strlen(presented));
	int found = 0;
	for (int i = 0; i < k->count; i++)
		found |= memeql_sec(digest, k->digests[i], sizeof digest);
	return found;
}
