/* A file of keys: what is read is within the limits, and finds the keys that it names. */
#include "fuzz_files.h"
#include "server/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	key_set k;
	wn_error err = {0};
	int fd;
	wn_code rc = key_set_load(&k, "keys.inference", "", fuzz_file(&fd, data, size), "WINNOW_NO_SUCH_KEY", &err);
	close(fd);
	if (rc != WN_OK ? !*err.message || k.count : k.count < 1 || k.count > KEYS_MAX)
		abort();
	for (int i = 0; i < k.count; i++)
		if (!k.names[i][0] || strlen(k.names[i]) != strspn(k.names[i], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"))
			abort();
	/* The last word of a line is a key, if the line counts at all; anything else must not be one by accident. */
	if (key_set_contains(&k, "") || key_set_contains(&k, "no such key at all"))
		abort();
	return 0;
}
