/* policy.c: see policy.h. */
#include "server/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/manifest.h"
#include "server/registry_disk.h"

static wn_code refuse(const char *what, const char *text, wn_error *err)
{
	return wn_fail(err, WN_INVALID,
		       "%s: found \"%.32s\", expected latest or a number from 1 to %d, or up to %d of them: 2,3", what,
		       text, DISK_MAX_VERSION, REGISTRY_MAX_VERSIONS);
}

/* Keeps the numbers ascending; false for one that is there already. */
static bool insert(version_policy *p, int number)
{
	int at = p->count;
	while (at > 0 && p->numbers[at - 1] > number)
		at--;
	if (at > 0 && p->numbers[at - 1] == number)
		return false;
	memmove(p->numbers + at + 1, p->numbers + at, (size_t)(p->count - at) * sizeof p->numbers[0]);
	p->numbers[at] = number;
	p->count++;
	return true;
}

wn_code policy_parse(version_policy *out, const char *text, const char *what, wn_error *err)
{
	*out = (version_policy){0};
	if (strcmp(text, "latest") == 0)
		return WN_OK;
	for (const char *p = text;; p++) {
		char number[16];
		p += strspn(p, " ");
		size_t n = strcspn(p, ", ");
		snprintf(number, sizeof number, "%.*s", n < sizeof number ? (int)n : 0, p);
		int v = disk_version_number(number);
		if (v == 0 || out->count == REGISTRY_MAX_VERSIONS || !insert(out, v))
			return refuse(what, text, err);
		p += n + strspn(p + n, " ");
		if (!*p)
			return WN_OK;
		if (*p != ',')
			return refuse(what, text, err);
	}
}

bool policy_lists(const version_policy *p, int number)
{
	for (int i = 0; i < p->count; i++)
		if (p->numbers[i] == number)
			return true;
	return false;
}

wn_code model_spec_parse(model_spec *out, const char *text, const char *what, wn_error *err)
{
	size_t n = strcspn(text, "=");
	*out = (model_spec){0};
	snprintf(out->name, sizeof out->name, "%.*s", n < sizeof out->name ? (int)n : 0, text);
	if (!manifest_name_is_valid(out->name))
		return wn_fail(err, WN_INVALID,
			       "%s: found \"%.64s\", expected [A-Za-z0-9._-]{1,64} without a leading dot", what, text);
	return policy_parse(&out->policy, text[n] ? text + n + 1 : "latest", what, err);
}
