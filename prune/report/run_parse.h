/* run_parse.h: pieces of a run's JSON into the structs of run_reader.h; its private half. */
#ifndef WINNOW_PRUNE_REPORT_RUN_PARSE_H
#define WINNOW_PRUNE_REPORT_RUN_PARSE_H

#include "prune/report/run_reader.h"

#define RUN_MAX_BLOCKS  128
#define RUN_MAX_CLASSES 256

/* count zeroed things that run_close frees; NULL: out of memory. */
void *run_alloc(run *r, size_t count, size_t size);
/* The array with room for one more behind its count (NULL and 0 at first); NULL: out of memory, and the array is as it was. */
void *run_grow(void *array, size_t count, size_t size);

/* NaN and NULL for what is not there. */
double run_number(const json_t *object, const char *key);
const char *run_string(const json_t *object, const char *key);

wn_code run_parse_eval(run *r, run_eval *out, const json_t *j, wn_error *err);
wn_code run_parse_widths(run *r, run_widths *out, const json_t *j, wn_error *err);
wn_code run_parse_plan(run *r, const json_t *j, wn_error *err);
wn_code run_parse_ablation(run *r, const json_t *j, wn_error *err);

/* One line of the log. *keep: the run borrows from it, so its document has to stay. */
wn_code run_parse_event(run *r, const json_t *j, bool *keep, wn_error *err);
/* When the log is through: what plan.json (NULL: there is none) says about the iterations that took place. */
wn_code run_join_plan(run *r, const json_t *plan, wn_error *err);

#endif
