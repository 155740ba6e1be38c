/* export_dir.c: see export_dir.h. */
#include "prune/export_dir.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/checkpoint.h"
#include "prune/run_dir.h"

#define ROOM 48 /* for a model's file names and a temporary's suffix behind the path */

wn_code export_dir_path(const char *run_dir, const char *export_dir, char *buf, wn_error *err)
{
	if (!*export_dir)
		return run_dir_path(run_dir, "export", buf, err);
	if (snprintf(buf, PATH_MAX, "%s", export_dir) >= PATH_MAX - ROOM)
		return wn_fail(err, WN_TOO_LARGE, "export.dir: path longer than %d bytes", PATH_MAX - ROOM);
	return WN_OK;
}

wn_code export_dir_check(const char *export_dir, const char *source, const char *what, wn_error *err)
{
	char dir[PATH_MAX];
	struct stat st, origin;
	if (!*export_dir)
		return WN_OK;
	wn_code rc = export_dir_path("", export_dir, dir, err);
	if (!rc && *source && !stat(dir, &st) && !stat(source, &origin) && origin.st_dev == st.st_dev && origin.st_ino == st.st_ino)
		return wn_fail(err, WN_INVALID, "export.dir: %s is %s: it would be replaced", dir, what);
	if (!rc && (rc = checkpoint_check_target(dir, err)))
		wn_fail_prefix(err, "export.dir");
	if (rc)
		return rc;
	const char *in = dirname(dir);
	if (access(in, W_OK | X_OK))
		return wn_fail(err, WN_IO, "export.dir: nothing can be written into %s: %s", in, strerror(errno));
	return WN_OK;
}
