/* train_log.h: RUN/log.jsonl, one JSON object a line: what a report plots.
 *
 *   {"event":"step","phase":"audit","step":12,"phase_step":2,"loss":…,"token_accuracy":…,"lr":…,"grad_norm":…,
 *    "samples_per_s":…,"batch_s":…,"step_s":…,"skipped":false}
 *   {"event":"eval","phase":"audit","step":500,"accuracy":…,…}
 * (a caption phase has "token_accuracy", and while only the vision stack learns "first_token_accuracy")
 *
 * A resumed run cuts the file back to where its checkpoint was made, so that no step appears twice. The lines up to there are on
 * disk before the checkpoint is: neither a kill nor a power cut leaves a log that is shorter than its checkpoint says. */
#ifndef WINNOW_PRUNE_TRAIN_LOG_H
#define WINNOW_PRUNE_TRAIN_LOG_H

#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "base/error.h"

typedef struct train_log {
	FILE *file;
	char *path;
} train_log;

/* Opens (or makes) path and cuts it to keep_bytes. A file shorter than that was tampered with: an error. */
wn_code train_log_open(train_log *l, const char *path, int64_t keep_bytes, wn_error *err);
/* Writes one line and flushes it; takes the reference to `row` (also on failure; NULL = no memory). */
wn_code train_log_write(train_log *l, json_t *row, wn_error *err);
/* Puts all lines so far on disk and says how many bytes they are: what a checkpoint made after this remembers. */
wn_code train_log_sync(train_log *l, int64_t *bytes, wn_error *err);
void train_log_close(train_log *l);

#endif
