/* Bodies of the model repository's commands. The input's first byte says which: i index, l load, anything else unload. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/registry_disk.h"
#include "server/repository.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(request *r, char which)
{
	bool ready_only;
	model_command c = {.kind = which == 'l' ? COMMAND_LOAD : COMMAND_UNLOAD};
	reason why = which == 'i' ? repository_parse_index(r, &ready_only) : repository_parse_command(r, &c);
	if (why != r->outcome || (why != REASON_OK && !*r->detail))
		abort();
	if (why == REASON_OK && (c.version < 0 || c.version > DISK_MAX_VERSION || c.percent < 0 || c.percent > 100 ||
				 (c.percent && (!c.version || c.kind != COMMAND_LOAD))))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static request_pool *pool;
	wn_error err = {0};
	if (!pool && request_pool_open(&pool, 0, (size_t)1 << 24, &err) != WN_OK)
		abort();
	if (size == 0 || size > REPOSITORY_MAX_BODY)
		return 0;
	request *r = request_pool_get(pool);
	if (!r)
		abort();
	if (bytes_reserve(&r->body, size, &err) == WN_OK) { /* exactly its bytes, and at least one */
		memcpy(r->body.data, data + 1, size - 1);
		r->body.len = size - 1;
		parse(r, (char)data[0]);
	}
	request_pool_put(pool, r);
	return 0;
}
