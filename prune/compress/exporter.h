/* exporter.h: the finished student: from RUN/best into export.dir in export.dtype, read back, measured beside its teacher, and
 * logged. Every figure of the final event is of the directory that is delivered, not of the weights it was rounded from. */
#ifndef WINNOW_PRUNE_COMPRESS_EXPORTER_H
#define WINNOW_PRUNE_COMPRESS_EXPORTER_H

#include "prune/compress/cost.h"
#include "prune/compress/workspace.h"
#include "prune/train_log.h"

/* name (of the iteration), best_step: where RUN/best comes from, for the lineage. Writes the final event (compress_log.h). */
wn_code exporter_run(const workspace *w, cost_model *cost, const char *name, int64_t best_step, train_log *log, wn_error *err);

#endif
