/* run_changes.h: what a resumed run is told otherwise than when it began.
 *
 * DIR/manifest.json keeps the configuration that a run began with (run_dir.h). Learning rates, loss weights and the like may
 * change on the way: a resume leaves a line in the log,
 *   {"event":"resume","changed":{"distill.learning_rate":[0.001,0.0005]}}
 * with the manifest's value and the one from there on, of every key that is otherwise than at the beginning; none when the log's last
 * such line says the same, and {} when all is as at the beginning again. What shapes the run may not change. */
#ifndef WINNOW_PRUNE_RUN_CHANGES_H
#define WINNOW_PRUNE_RUN_CHANGES_H

#include <jansson.h>

#include "base/error.h"
#include "base/yaml_config.h"
#include "prune/train_log.h"

/* *out, the caller's: {"key": [old, new], …} of `now` against the configuration in dir/manifest.json; NULL when nothing
 * changed, and when there is no manifest yet. fixed: paths that must be the same, "final." for all below it, the last NULL;
 * may be NULL. WN_INVALID names the first of them that is not. */
wn_code run_changes(json_t **out, const config_schema *schema, const void *now, const char *dir, const char *const *fixed, wn_error *err);

/* Writes the line above, if there is something to say. log: open, cut to what its checkpoint saw; changed: of run_changes. */
wn_code run_changes_log(train_log *log, const json_t *changed, wn_error *err);

#endif
