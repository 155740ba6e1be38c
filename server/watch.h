/* watch.h: a thread's sleep that ends when a watched directory changes, when somebody wakes it, or when time is up.
 *
 * Directories are watched by descriptor with inotify. That something changed is told, not what: the sleeper looks at everything again,
 * which is right after an overflow and on a file system whose changes inotify sees only in part too. Where inotify sees
 * nothing at all (NFS, some container mounts), the time limit is the polling interval. */
#ifndef WINNOW_SERVER_WATCH_H
#define WINNOW_SERVER_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef struct watch watch;

/* inotify false: polling alone. A system that has no inotify instance left does with that too; watch_has_inotify tells.
 */
wn_code watch_open(watch **out, bool inotify, wn_error *err);
void watch_close(watch **w);
bool watch_has_inotify(const watch *w);

/* Watches a directory; the same one again costs nothing. Gone directories are forgotten by themselves. */
void watch_add(watch *w, int dir_fd);
/* One thread. Whether a directory changed. */
bool watch_wait(watch *w, int64_t timeout_ns);
/* Any thread; a wake before the sleep ends the next one. */
void watch_wake(watch *w);

#endif
