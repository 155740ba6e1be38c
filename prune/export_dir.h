/* export_dir.h: where a run puts the finished model: export.dir, or RUN/export. */
#ifndef WINNOW_PRUNE_EXPORT_DIR_H
#define WINNOW_PRUNE_EXPORT_DIR_H

#include "base/error.h"

/* Its path into buf (PATH_MAX). export_dir: as configured, may be "". */
wn_code export_dir_path(const char *run_dir, const char *export_dir, char *buf, wn_error *err);

/* Refuses, before the first step, what could not be written when the model is finished hours from now, and what must not be replaced:
 * files of somebody's, and `source`, the directory the run itself starts from (may be ""), called `what` in the message. RUN/export is
 * always fine. */
wn_code export_dir_check(const char *export_dir, const char *source, const char *what, wn_error *err);

#endif
