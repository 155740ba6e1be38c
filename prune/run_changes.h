/* run_changes.h: what a resumed run is told otherwise than when it began.
 *
 * DIR/manifest.json keeps the configuration that a run began with (run_dir.h). Learning rates, loss weights and the like may
 * change on the way: every resume that differs from the beginning leaves a line in the log,
 *   {"event":"resume","changed":{"distill.learning_rate":[0.001,0.0005]}}
 * with the manifest's value and the one from there on. What shapes the run may not change. */
#ifndef WINNOW_PRUNE_RUN_CHANGES_H
#define WINNOW_PRUNE_RUN_CHANGES_H

#include <jansson.h>

#include "base/error.h"
#include "base/yaml_config.h"

/* *out, the caller's: {"key": [old, new], …} of `now` against the configuration in dir/manifest.json; NULL when nothing
 * changed, and when there is no manifest yet. fixed: paths that must be the same, "final." for all below it, the last NULL;
 * may be NULL. WN_INVALID names the first of them that is not. */
wn_code run_changes(json_t **out, const config_schema *schema, const void *now, const char *dir, const char *const *fixed, wn_error *err);

/* The line above; NULL on no memory. Borrows `changed`. */
json_t *run_changes_event(json_t *changed);

#endif
