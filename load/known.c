/* known.c: see known.h. The file is kept as jansson read it: two look-ups an answer, nothing to build. */
#include "load/known.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_text.h"

struct known_answers {
	json_t *root;
	const json_t *answers; /* within root */
	double tolerance;
	known_counts total;
	known_tally *tallies; /* [num_tallies], room for a power of two; owned */
	size_t num_tallies;
	char first[240];
};

/* ---- the file ---- */

static bool is_answer(const json_t *a)
{
	const json_t *labels = json_object_get(a, "labels");
	size_t i;
	json_t *l;
	if (!json_is_string(json_object_get(a, "label")) || !json_array_size(labels))
		return false;
	json_array_foreach(labels, i, l)
	{
		if (!json_is_string(json_object_get(l, "name")) || !json_is_number(json_object_get(l, "score")))
			return false;
	}
	return true;
}

static wn_code check_file(const known_answers *k, const char *path, wn_error *err)
{
	const char *digest, *ad;
	json_t *ads, *answer;
	if (!(k->tolerance > 0 && k->tolerance < 1))
		return wn_fail(err, WN_INVALID, "%s: \"tolerance\" is missing, expected a number between 0 and 1",
			       path);
	if (!json_object_size(k->answers))
		return wn_fail(err, WN_INVALID, "%s: \"answers\" is missing, expected an object by digest", path);
	json_object_foreach((json_t *)k->answers, digest, ads)
	{
		if (!json_object_size(ads))
			return wn_fail(err, WN_INVALID, "%s: %.80s: expected answers by ad", path, digest);
		json_object_foreach(ads, ad, answer)
		{
			if (!is_answer(answer))
				return wn_fail(err, WN_INVALID,
					       "%s: %.80s: %.80s: expected \"label\", and \"labels\" with names and "
					       "scores",
					       path, digest, ad);
		}
	}
	return WN_OK;
}

wn_code known_answers_open(known_answers **out, const char *path, wn_error *err)
{
	char *text = NULL;
	size_t len = 0;
	json_error_t je = {0};
	known_answers *k = calloc(1, sizeof *k);
	*out = k;
	if (!k)
		return wn_fail(err, WN_NOMEM, "%s: no memory", path);
	wn_code code = file_read(path, KNOWN_MAX_FILE, &text, &len, err);
	if (code == WN_OK && !(k->root = json_read(text, len, JSON_REJECT_DUPLICATES, &je)))
		code = wn_fail(err, json_read_code(&je), "%s:%d: %s", path, je.line, je.text);
	free(text);
	if (code == WN_OK) {
		k->answers = json_object_get(k->root, "answers");
		k->tolerance = json_number_value(json_object_get(k->root, "tolerance"));
		code = check_file(k, path, err);
	}
	if (code != WN_OK)
		known_answers_close(out);
	return code;
}

void known_answers_close(known_answers **k)
{
	if (!*k)
		return;
	json_decref((*k)->root);
	free((*k)->tallies);
	free(*k);
	*k = NULL;
}

/* ---- one answer ---- */

/* Only the first is kept: what follows is often the same. */
static void __attribute__((format(printf, 2, 3))) tell(known_answers *k, const char *fmt, ...)
{
	va_list args;
	if (k->first[0])
		return;
	va_start(args, fmt);
	vsnprintf(k->first, sizeof k->first, fmt, args);
	va_end(args);
	for (char *p = k->first; *p; p++) /* it quotes the server, and may end on a terminal */
		*p = *p >= ' ' && *p < 0x7f ? *p : '?';
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

static const json_t *score_of(const json_t *labels, const char *name)
{
	size_t i;
	json_t *l;
	json_array_foreach((json_t *)labels, i, l)
	{
		if (!strcmp(text_of(l, "name"), name))
			return json_object_get(l, "score");
	}
	return NULL;
}

static bool is_right(known_answers *k, const json_t *found, const json_t *known, const char *ad, const char *version)
{
	static const char *const TEXTS[] = {"label", "suggestion"};
	const json_t *labels = json_object_get(found, "labels"), *expected = json_object_get(known, "labels");
	size_t i;
	json_t *l;
	for (size_t t = 0; t < sizeof TEXTS / sizeof *TEXTS; t++)
		if (strcmp(text_of(found, TEXTS[t]), text_of(known, TEXTS[t]))) {
			tell(k, "%s: version %s says %s \"%s\", its model \"%s\"", ad, version, TEXTS[t],
			     text_of(found, TEXTS[t]), text_of(known, TEXTS[t]));
			return false;
		}
	json_array_foreach((json_t *)expected, i, l)
	{
		const json_t *score = score_of(labels, text_of(l, "name"));
		const double should = json_number_value(json_object_get(l, "score"));
		if (json_is_number(score) && fabs(json_number_value(score) - should) <= k->tolerance)
			continue;
		tell(k, "%s: version %s says %s %.6g, its model %.6g", ad, version, text_of(l, "name"),
		     json_number_value(score), should);
		return false;
	}
	if (json_array_size(labels) == json_array_size(expected))
		return true;
	tell(k, "%s: version %s says %zu labels, its model %zu", ad, version, json_array_size(labels),
	     json_array_size(expected));
	return false;
}

/* NULL: no room. */
static known_tally *tally_of(known_answers *k, const char *version, const char *digest)
{
	for (size_t i = k->num_tallies; i-- > 0;) /* the newest answers most */
		if (!strcmp(k->tallies[i].version, version) && !strcmp(k->tallies[i].digest, digest))
			return &k->tallies[i];
	if (k->num_tallies == KNOWN_MAX_VERSIONS || strlen(version) >= sizeof k->tallies->version ||
	    strlen(digest) >= sizeof k->tallies->digest)
		return NULL;
	if (!(k->num_tallies & (k->num_tallies - 1))) {
		known_tally *grown =
		    realloc(k->tallies, (k->num_tallies ? 2 * k->num_tallies : 1) * sizeof *k->tallies);
		if (!grown)
			return NULL;
		k->tallies = grown;
	}
	known_tally *t = &k->tallies[k->num_tallies++];
	*t = (known_tally){0};
	strcpy(t->version, version);
	strcpy(t->digest, digest);
	return t;
}

void known_answers_check(known_answers *k, const char *ad, const char *body, size_t len)
{
	json_t *found = len ? json_read(body, len, 0, NULL) : NULL;
	const json_t *model = json_object_get(found, "model");
	const char *version = text_of(model, "version"), *digest = text_of(model, "digest");
	const json_t *known = json_object_get(json_object_get(k->answers, digest), ad);
	known_tally *t = tally_of(k, version, digest);
	if (!known)
		tell(k, "%s: version \"%s\" with digest \"%.80s\": no answer of it is known", ad, version, digest);
	const bool right = known && is_right(k, found, known, ad, version);
	known_counts *const both[] = {&k->total, t ? &t->counts : NULL};
	for (int i = 0; i < 2 && both[i]; i++) {
		both[i]->right += right;
		both[i]->wrong += known && !right;
		both[i]->unknown += !known;
	}
	json_decref(found);
}

/* ---- the account ---- */

known_counts known_answers_total(const known_answers *k) { return k->total; }

const known_tally *known_answers_tallies(const known_answers *k, size_t *count)
{
	*count = k->num_tallies;
	return k->tallies;
}

const char *known_answers_first(const known_answers *k) { return k->first; }
