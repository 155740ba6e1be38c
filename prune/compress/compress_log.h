/* compress_log.h: what a compression run writes into RUN/log.jsonl, and the evaluations and numbers that it shares with
 * RUN/plan.json (compress_plan.h) and iterations/NNN-name.pruning.json (cut.h).
 *
 * log.jsonl, one JSON object a line (prune/train_log.h):
 *   {"event":"teacher","parameters":…,"flops":…,"latency_ms":…,"eval":E}                                     first
 *   {"event":"step","iteration":3,"step":1200,"iteration_step":200,"loss":…,"nll":…,"kl":…,"pair":…,"relation":…,"hidden":…,
 *    "accuracy":…,"lr":…,"grad_norm":…,"samples_per_s":…,"skipped":false}
 *   {"event":"eval","iteration":3,"step":1200,"iteration_step":200,"best":true,"eval":E}
 *   {"event":"iteration","iteration":3,"name":"003-inner","parameters":…,"flops":…,"latency_ms":…,"score_lost":{…},"before":E,
 *    "after":E,"seconds":…}                                                                                  (before: sliced, not distilled)
 *   {"event":"final","parameters":…,"flops":…,"eval":E,"latency_ms":…,"cpu_seconds_per_request":…,"joules_per_request":…,
 *    and the last four with "teacher_" in front: measured beside the student's}                               last
 *   {"event":"resume","changed":{…}}                            a resume with other settings (prune/run_changes.h)
 * E = {"split":"validation","samples":…,"accuracy":…,"macro_f1":…,"ece":…,"nll":…,"classes":[{"label":…,"precision":…,"recall":…,
 * "f1":…,"support":…}]}. What was not measured is null. */
#ifndef WINNOW_PRUNE_COMPRESS_LOG_H
#define WINNOW_PRUNE_COMPRESS_LOG_H

#include <jansson.h>

#include "model/manifest.h"
#include "prune/compress/distill_loss.h"
#include "prune/metrics.h"

/* A number, or null when it is not finite: JSON has no NaN. */
json_t *json_number(double v);
/* E above. */
json_t *eval_json(const metrics *m, const char *split, const manifest *labels);
/* A number of E; NaN where it is null, or E is. */
double eval_number(const json_t *eval, const char *key);

#endif
