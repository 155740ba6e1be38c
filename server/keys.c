/* keys.c: see keys.h. */
#include "server/keys.h"

#include <limits.h>
#include <stdio.h>
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

static wn_code add_key(key_set *k, const char *where, const char *name, const char *key, size_t len, wn_error *err)
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
	for (int i = 0; i < k->count; i++)
		if (strcmp(k->names[i], name) == 0)
			return wn_fail(err, WN_INVALID, "%s: found a second key of the name \"%s\", expected a name for each: logs show nothing else",
				       where, name);
	digest_key(k->digests[k->count], key, len);
	snprintf(k->names[k->count++], KEY_NAME_SIZE, "%s", name);
	return WN_OK;
}

/* "KEY" or "NAME KEY", line end cut off already. */
static wn_code add_line(key_set *k, const char *path, int line, const char *text, wn_error *err)
{
	static const char NAME[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	char name[KEY_NAME_SIZE], where[PATH_MAX + 16];
	size_t first = strcspn(text, " \t"), gap = strspn(text + first, " \t");
	const char *second = text + first + gap;
	size_t len = strcspn(second, " \t");
	snprintf(name, sizeof name, "key-%d", k->count + 1);
	snprintf(where, sizeof where, "%s:%d", path, line);
	if (len == 0)
		return add_key(k, where, name, text, first, err);
	if (second[len + strspn(second + len, " \t")])
		return wn_fail(err, WN_INVALID, "%s: found more than two words, expected KEY or NAME KEY", where);
	if (first >= sizeof name || strspn(text, NAME) != first)
		return wn_fail(err, WN_INVALID, "%s: expected a name of [A-Za-z0-9._-]{1,%d} before the key", where,
			       KEY_NAME_SIZE - 1);
	snprintf(name, sizeof name, "%.*s", (int)first, text);
	return add_key(k, where, name, second, len, err);
}

static wn_code add_file(key_set *k, const char *path, wn_error *err)
{
	char *text = NULL;
	size_t len;
	wn_code code = file_read(path, 65536, &text, &len, err);
	if (code != WN_OK)
		return code;
	int number = 1;
	for (char *line = text, *next; code == WN_OK && line; line = next, number++) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		line[strcspn(line, "\r")] = 0;
		line += strspn(line, " \t");
		if (line[0] && line[0] != '#')
			code = add_line(k, path, number, line, err);
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
		return add_key(k, env, "environment", from_env, strlen(from_env), err);
	if (*value)
		return add_key(k, what, "configuration", value, strlen(value), err);
	wn_code code = *file ? add_file(k, file, err) : WN_OK;
	if (code != WN_OK)
		memset(k, 0, sizeof *k);
	return code;
}

int key_set_find(const key_set *k, const char *presented)
{
	uint8_t digest[32];
	int found = -1;
	digest_key(digest, presented, strlen(presented));
	for (int i = 0; i < k->count; i++) { /* all of them, whichever it is */
		int mask = -memeql_sec(digest, k->digests[i], sizeof digest);
		found = (found & ~mask) | (i & mask);
	}
	return found;
}

bool key_set_contains(const key_set *k, const char *presented) { return key_set_find(k, presented) >= 0; }
