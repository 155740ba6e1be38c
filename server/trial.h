/* trial.h: a candidate version beside the one that answers: which requests it gets, what came of them, what follows.
 *
 * canary: a share of the requests is answered by the candidate. shadow: a share is copied to it, nobody sees its
 * answers. In both, each request of the share is also run through the other version afterwards, aside (compare.h),
 * which tells how often the two agree and how long each takes under the same conditions: side by side on the same
 * input, so that a busy machine slows both.
 *
 * Counters are atomics; a mutex guards what came of the comparisons, which a reader sees whole. Any thread may call anything. Freed by the last reference.
 */
#ifndef WINNOW_SERVER_TRIAL_H
#define WINNOW_SERVER_TRIAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "server/config.h"

typedef enum trial_mode { TRIAL_CANARY, TRIAL_SHADOW } trial_mode;
const char *trial_mode_name(trial_mode m);

typedef struct trial trial;

/* percent: 1 to 100. changed (may be NULL) is called after every result, from the thread that has it. */
wn_code trial_open(trial **out, trial_mode mode, int percent, void (*changed)(void *cls), void *cls, wn_error *err);
void trial_retain(trial *t);
void trial_release(trial **t);

trial_mode trial_get_mode(const trial *t);
/* Whether the next request belongs to the share; spread evenly, exactly percent of every hundred. */
bool trial_selects(trial *t);

/* Results: the two answers to one request; a comparison that did not take place because the last one is still running;
 * the candidate could not answer. */
void trial_compared(trial *t, bool agreed, int64_t candidate_ns, int64_t primary_ns);
void trial_dropped(trial *t);
void trial_failed(trial *t);

typedef struct trial_summary {
	trial_mode mode;
	int percent;
	uint64_t selected, compared, agreed, dropped, failed;
	int64_t candidate_ns, primary_ns; /* medians of the last comparisons, 0 without one */
} trial_summary;
trial_summary trial_read(trial *t);

typedef enum trial_verdict { TRIAL_GOES_ON, TRIAL_PROMOTE, TRIAL_ROLL_BACK } trial_verdict;
/* By config->canary_*; *why (may be NULL) gets the reason, one line. Pure. */
trial_verdict trial_judge(const trial_summary *s, const server_config *config, char why[160]);

/* "NAME/VERSION:PERCENT" or "NAME/VERSION:PERCENT:MODE", as the configuration starts one. */
typedef struct trial_spec {
	char name[65];
	int version, percent;
	trial_mode mode;
} trial_spec;
wn_code trial_spec_parse(trial_spec *out, const char *text, wn_error *err);

#endif
