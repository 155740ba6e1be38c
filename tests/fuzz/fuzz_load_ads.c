/* winnow-load's folder of ads, and its file of known answers held against an answer, and against each of its lines
 * (fuzz_files.h's bundle). */
#include "fuzz_files.h"
#include "load/ads.h"
#include "load/known.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const FILES[] = {"metadata.jsonl", "known.json", "answer.json", NULL};

static size_t slurp(char *out, size_t size, const char *name)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
	FILE *f = fopen(path, "rb");
	size_t n = f ? fread(out, 1, size, f) : 0;
	if (f)
		fclose(f);
	return n;
}

/* Counts one answer; what follows adds up. */
static void check_answer(known_answers *k, const char *answer, size_t len, size_t answers)
{
	char *exact = malloc(len ? len : 1);
	size_t count;
	if (!exact)
		abort();
	memcpy(exact, answer, len);
	known_answers_check(k, "ad.jpg", exact, len);
	free(exact);
	const known_counts c = known_answers_total(k);
	if (c.right + c.wrong + c.unknown != answers || (!*known_answers_first(k)) != (c.right == answers))
		abort();
	known_counts sum = {0};
	const known_tally *t = known_answers_tallies(k, &count);
	for (size_t i = 0; i < count; i++) {
		sum.right += t[i].counts.right;
		sum.wrong += t[i].counts.wrong;
		sum.unknown += t[i].counts.unknown;
	}
	if (sum.right > c.right || sum.wrong > c.wrong || sum.unknown > c.unknown)
		abort();
	for (const char *p = known_answers_first(k); *p; p++) /* it may end on a terminal */
		if (*p < ' ' || *p >= 0x7f)
			abort();
}

static void check_known(void)
{
	static char answer[1 << 16];
	char path[128];
	known_answers *k = NULL;
	wn_error err = {0};
	snprintf(path, sizeof path, "%s/known.json", fuzz_dir());
	const wn_code rc = known_answers_open(&k, path, &err);
	if ((rc == WN_OK) != (k != NULL) || (rc != WN_OK && !*err.message))
		abort();
	if (!k)
		return;
	const size_t len = slurp(answer, sizeof answer, "answer.json");
	size_t line, answers = 1;
	check_answer(k, answer, len, answers);
	for (size_t at = 0; at < len; at += fuzz_line((const uint8_t *)answer + at, len - at, &line)) {
		fuzz_line((const uint8_t *)answer + at, len - at, &line);
		check_answer(k, answer + at, line, ++answers);
	}
	known_answers_close(&k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	ads a;
	wn_error err = {0};
	fuzz_bundle(data, size, FILES);
	fuzz_put("ad.jpg", (const uint8_t *)"\xff\xd8\xff", 3);
	if (ads_read(&a, fuzz_dir(), 0, &err) == WN_OK) {
		for (size_t i = 0; i < a.count; i++)
			if (!a.items[i].name || !a.items[i].text || !a.items[i].image)
				abort();
		ads_close(&a);
	} else if (!*err.message || a.items) {
		abort();
	}
	check_known();
	return 0;
}
