/* known.h: answers that are known beforehand, by model and by ad; every answer of a run is held against them.
 *
 * "Which version really computed this?" An answer names a version and the digest of its weights. When two versions say
 * different things of the same ads, the scores tell whether it named the right one. The file:
 *
 *   {"tolerance": 0.001,
 *    "answers": {"sha256:…": {"ad.jpg": {"label": "gambling", "suggestion": "block",
 *                                        "labels": [{"name": "gambling", "score": 0.97}, …]}, …}, …}}
 *
 * by digest, and by the name of the ad's image; an entry is what `winnow-prune classify` prints (more members do no
 * harm). Right: the same label, suggestion and names, and every score within the tolerance. The bytes of answers are a
 * stranger's. One owner, no thread. */
#ifndef WINNOW_LOAD_KNOWN_H
#define WINNOW_LOAD_KNOWN_H

#include <stddef.h>

#include "base/error.h"

#define KNOWN_MAX_FILE     ((size_t)64 << 20) /* bytes */
#define KNOWN_MAX_VERSIONS 4096               /* told apart in the tallies; answers of more count in the totals only */

typedef struct known_counts {
	size_t right, wrong;
	size_t unknown; /* the file has nothing on this digest and ad, or the answer names none */
} known_counts;

typedef struct known_tally {
	char version[32], digest[80]; /* as the answers name them */
	known_counts counts;
} known_tally;

typedef struct known_answers known_answers;

/* WN_INVALID names the file and what is wrong with it. */
wn_code known_answers_open(known_answers **out, const char *path, wn_error *err);
void known_answers_close(known_answers **k);

/* Holds one answer (2xx) to the ad of that name against the file, and counts it. */
void known_answers_check(known_answers *k, const char *ad, const char *body, size_t len);

known_counts known_answers_total(const known_answers *k);
/* [*count], in the order of their first answers; valid until the next check. */
const known_tally *known_answers_tallies(const known_answers *k, size_t *count);
/* One line on the first answer that was not right; "" when there was none. */
const char *known_answers_first(const known_answers *k);

#endif
