/* What names a version: directories of a registry, policies, models and trials of the configuration, paths of requests. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/manifest.h"
#include "server/policy.h"
#include "server/registry_disk.h"
#include "server/routes.h"
#include "server/trial.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One directory below where it is used, whatever it is. */
static void check_name(const char *name)
{
	if (manifest_name_is_valid(name) && (!*name || *name == '.' || strchr(name, '/') || strlen(name) > 64))
		abort();
}

static void check_version(const char *text)
{
	char again[16];
	const int number = disk_version_number(text);
	snprintf(again, sizeof again, "%d", number);
	if (number < 0 || number > DISK_MAX_VERSION || (number && strcmp(again, text) != 0))
		abort();
}

static void check_policy(const char *text)
{
	version_policy p;
	model_spec m;
	wn_error err = {0}, other = {0};
	if (policy_parse(&p, text, "p", &err) != WN_OK && !*err.message)
		abort();
	for (int i = 0; err.code == WN_OK && i < p.count; i++)
		if (p.count > REGISTRY_MAX_VERSIONS || p.numbers[i] < 1 || (i && p.numbers[i] <= p.numbers[i - 1]))
			abort();
	if (model_spec_parse(&m, text, "m", &other) == WN_OK ? !manifest_name_is_valid(m.name) : !*other.message)
		abort();
}

static void check_trial(const char *text)
{
	trial_spec t;
	wn_error err = {0};
	if (trial_spec_parse(&t, text, &err) != WN_OK ? !*err.message
						      : !manifest_name_is_valid(t.name) || t.version < 1 || t.percent < 1 || t.percent > 100)
		abort();
}

static void check_route(const char *path)
{
	const route r = route_of(path);
	const bool names = r.id == ROUTE_MODEL || r.id == ROUTE_MODEL_READY || r.id == ROUTE_LOAD || r.id == ROUTE_UNLOAD;
	if ((r.id != ROUTE_NONE && *path != '/') || (names && (!*r.model || !strstr(path, r.model) || strchr(r.model, '/'))) ||
	    strchr(r.version, '/'))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	check_name(text);
	check_version(text);
	check_policy(text);
	check_trial(text);
	check_route(text);
	free(text);
	return 0;
}
