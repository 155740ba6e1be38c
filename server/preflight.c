/* preflight.c: see preflight.h. The certificate comes last: it is the one thing that takes effect. */
#include "server/preflight.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/access_log.h"
#include "server/log.h"
#include "server/policy.h"
#include "server/registry_disk.h"
#include "server/tls.h"

static void warn_of_readers(const char *what, const char *path)
{
	struct stat st;
	if (*path && stat(path, &st) == 0 && (st.st_mode & (S_IROTH | S_IWOTH)))
		log_warning("%s: %s: every user of this machine may %s it (mode %04o), expected 0640 or less", what, path,
			    st.st_mode & S_IROTH ? "read" : "write", (unsigned)st.st_mode & 07777);
}

wn_code preflight(access_rules **rules, const server_config *c, wn_error *err)
{
	wn_code code = access_rules_load(rules, c, err);
	if (code == WN_OK)
		code = access_log_check(c->access_log, err);
	if (code == WN_OK && *c->tls_certificate)
		code = tls_load(c->tls_certificate, c->tls_key, err);
	if (code != WN_OK) {
		access_release(rules);
		return code;
	}
	warn_of_readers("keys.inference_file", c->inference_key_file);
	warn_of_readers("keys.metrics_file", c->metrics_key_file);
	warn_of_readers("keys.admin_file", c->admin_key_file);
	warn_of_readers("tls.key", c->tls_key);
	return WN_OK;
}

/* ---- models ---- */

static wn_code look_for_model(int root_fd, const server_config *c, size_t i, wn_error *err)
{
	model_spec spec;
	if (server_config_model(c, i, &spec, err) != WN_OK)
		return WN_INVALID;
	int fd = disk_open_model(root_fd, c->registry_root, spec.name, err);
	if (fd < 0)
		return err->code;
	close(fd);
	return WN_OK;
}

wn_code preflight_models(const server_config *c, wn_error *err)
{
	wn_error local = {0};
	err = err ? err : &local;
	if (*c->model_dir) {
		struct stat st;
		int e = stat(c->model_dir, &st) != 0 ? errno : S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
		return e == 0 ? WN_OK
			      : wn_fail(err, WN_NOT_FOUND, "%s: cannot open the model directory: %s", c->model_dir, strerror(e));
	}
	int root_fd = disk_open_root(c->registry_root, err);
	if (root_fd < 0)
		return err->code;
	wn_code code = WN_OK;
	for (size_t i = 0; code == WN_OK && i < server_config_num_models(c); i++)
		code = look_for_model(root_fd, c, i, err);
	close(root_fd);
	return code;
}
