/* policy.h: which versions of a model are wanted, as the configuration says it. Pure. */
#ifndef WINNOW_SERVER_POLICY_H
#define WINNOW_SERVER_POLICY_H

#include <stdbool.h>

#include "base/error.h"
#include "server/registry.h"

/* "latest": the largest number there is, count 0. "3": that one. "2,3": those, side by side; the largest answers. */
typedef struct version_policy {
	int count;
	int numbers[REGISTRY_MAX_VERSIONS]; /* ascending */
} version_policy;

/* `what` is the configuration key for messages. */
wn_code policy_parse(version_policy *out, const char *text, const char *what, wn_error *err);
bool policy_lists(const version_policy *p, int number);

typedef struct model_spec {
	char name[MODEL_NAME_SIZE];
	version_policy policy;
} model_spec;

/* "NAME" (latest) or "NAME=POLICY". */
wn_code model_spec_parse(model_spec *out, const char *text, const char *what, wn_error *err);

#endif
