/* report.h: a run as one HTML page: numbers, plots, tables. What the run does not have is left out with one sentence, never
 * made up. The same run gives the same bytes. */
#ifndef WINNOW_PRUNE_REPORT_REPORT_H
#define WINNOW_PRUNE_REPORT_REPORT_H

#include <stddef.h>

#include "base/error.h"
#include "prune/report/energy.h"
#include "prune/report/run_reader.h"

/* *out: the page, *len bytes and a NUL behind them; the caller frees. */
wn_code report_make(char **out, size_t *len, const run *r, const energy_assumptions *energy, wn_error *err);

#endif
