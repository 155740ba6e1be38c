/* manager_scan.c: the table of models, kept as the registry on disk is.
 *
 * A scan looks at everything, whatever it was that changed (watch.h says why), and asks for an event of every directory
 * that it looks into. Entries are made by the configuration and by names on disk, and never go: a model whose directory
 * went may be loaded. What could not be looked at for lack of something (rights, descriptors, memory) is not taken for
 * gone. */
#include "server/manager_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/pretokenize.h"
#include "server/log.h"
#include "server/registry_disk.h"
#include "server/request.h"

model_entry *manager_find(manager *m, const char *name)
{
	for (int i = 0; i < m->count; i++)
		if (strcmp(m->models[i]->name, name) == 0)
			return m->models[i];
	return NULL;
}

model_entry *manager_add(manager *m, const char *name)
{
	model_entry *e = manager_find(m, name);
	if (e || m->count == MAX_KNOWN || !(e = calloc(1, sizeof *e)))
		return e;
	snprintf(e->name, sizeof e->name, "%s", name);
	pthread_mutex_lock(&m->lock);
	m->models[m->count++] = e;
	pthread_mutex_unlock(&m->lock);
	return e;
}

/* ---- looking at the disk ---- */

static void scan_version(manager *m, model_entry *e, int model_fd, int number)
{
	char shown[1024];
	disk_state disk = {0}; /* of what cannot be looked at: it is there, and that is all that is known of it */
	wn_error err = {0};
	const char *root = m->opt.config->registry_root;
	snprintf(shown, sizeof shown, "%s/%s/%d", root, e->name, number);
	int fd = disk_open_version(model_fd, root, e->name, number, &err);
	if (fd >= 0) {
		watch_add(m->watch, fd);
		(void)disk_look(&disk, fd, shown, false, &err);
		close(fd);
	} else if (err.code == WN_NOT_FOUND) {
		return; /* removed since it was listed */
	}
	const bool in_part = err.code == WN_IO || err.code == WN_NOMEM; /* which is not what it looks like */
	if (in_part)
		disk = (disk_state){0};
	pthread_mutex_lock(&m->lock);
	version_entry *v = fd < 0 || in_part ? versions_find(e, number) : NULL;
	const bool known = v != NULL;
	if (known)
		version_met(v); /* what is known of it stays: it may be this process that has no descriptor left */
	else
		v = versions_seen(e, number, &disk, monotonic_ns());
	/* What has no winnow.json, as far as one can see, is not even tried: nobody else would tell. Of one that is known it would be
	 * told for ever: its files do not change when it can be looked at again. */
	const bool tell = v && err.code != WN_OK && !(known && in_part) && !disk.has_manifest && !v->loaded && !v->reason[0];
	if (tell)
		version_set_reason(v, manager_for_clients(m, err.message));
	pthread_mutex_unlock(&m->lock);
	if (tell && m->running)
		log_error("model %s version %d: %s", e->name, number, err.message);
}

static void scan_versions(manager *m, model_entry *e, int model_fd, const int *numbers, size_t count)
{
	pthread_mutex_lock(&m->lock);
	versions_begin_scan(e);
	pthread_mutex_unlock(&m->lock);
	for (size_t i = 0; i < count; i++)
		scan_version(m, e, model_fd, numbers[i]);
	pthread_mutex_lock(&m->lock);
	versions_end_scan(e);
	pthread_mutex_unlock(&m->lock);
}

/* What could not be looked at stays as it is known; "" when it could. */
static void set_unseen(manager *m, model_entry *e, const char *why)
{
	pthread_mutex_lock(&m->lock);
	snprintf(e->unseen, sizeof e->unseen, "%s", manager_for_clients(m, why));
	utf8_repair(e->unseen);
	pthread_mutex_unlock(&m->lock);
}

static void scan_model(manager *m, model_entry *e, int root_fd)
{
	int *numbers = NULL;
	size_t count = 0;
	wn_error err = {0};
	int fd = disk_open_model(root_fd, m->opt.config->registry_root, e->name, &err);
	if (fd >= 0) {
		watch_add(m->watch, fd); /* before the listing: what comes in between is an event */
		(void)disk_list_versions(fd, &numbers, &count, &err);
	}
	const bool unseen = err.code != WN_OK && err.code != WN_NOT_FOUND; /* a link in its place is no removal either */
	if (!unseen)
		scan_versions(m, e, fd, numbers, count);
	else if (m->running && !e->unseen_told)
		log_error("model %s: %s; what is known of it stays", e->name, err.message);
	if (!unseen && e->unseen_told)
		log_info("model %s: its directory can be looked at again", e->name);
	e->unseen_told = unseen && m->running;
	set_unseen(m, e, unseen ? err.message : "");
	free(numbers);
	if (fd >= 0)
		close(fd);
}

void manager_scan(manager *m)
{
	char **names = NULL;
	size_t count = 0;
	wn_error err = {0};
	if (*m->opt.config->model_dir)
		return;
	int root_fd = disk_open_root(m->opt.config->registry_root, &err);
	if (root_fd >= 0) {
		watch_add(m->watch, root_fd);
		(void)disk_list_names(root_fd, &names, &count, &err);
	}
	if (err.code != WN_OK && !m->unread[0] && m->running)
		log_error("%s; what is loaded stays", err.message);
	if (err.code == WN_OK && m->unread[0])
		log_info("%s: the model registry can be looked at again", m->opt.config->registry_root);
	pthread_mutex_lock(&m->lock);
	snprintf(m->unread, sizeof m->unread, "%s", manager_for_clients(m, err.message));
	utf8_repair(m->unread);
	pthread_mutex_unlock(&m->lock);
	for (size_t i = 0; i < count; i++) {
		(void)manager_add(m, names[i]);
		free(names[i]);
	}
	free(names);
	for (int i = 0; i < m->count; i++)
		if (err.code == WN_OK)
			scan_model(m, m->models[i], root_fd);
		else
			set_unseen(m, m->models[i], err.message);
	if (root_fd >= 0)
		close(root_fd);
}

void manager_tell_absent(manager *m, model_entry *e)
{
	for (int i = 0; i < e->policy.count && !e->unseen[0]; i++) {
		const bool absent = versions_absent(e, i);
		if (absent && !e->absent_told[i])
			log_error("model %s version %d: the configuration wants it, and it is not in the registry", e->name,
				  e->policy.numbers[i]);
		e->absent_told[i] = absent;
	}
}

wn_code manager_explain_nothing(manager *m, const model_entry *e, wn_error *err)
{
	char shown[1024];
	disk_state disk;
	const char *root = m->opt.config->registry_root;
	int number = e->policy.count > 0 ? e->policy.numbers[e->policy.count - 1]
		     : e->count > 0      ? e->versions[e->count - 1].number
					 : 0;
	snprintf(shown, sizeof shown, "%s/%s/%d", root, e->name, number);
	int version_fd = -1, root_fd = disk_open_root(root, err);
	int model_fd = root_fd >= 0 ? disk_open_model(root_fd, root, e->name, err) : -1;
	if (model_fd >= 0 && number == 0)
		wn_fail(err, WN_NOT_FOUND, "%s/%s: found no version directory, expected names such as 1 or 2", root,
			e->name);
	else if (model_fd >= 0)
		version_fd = disk_open_version(model_fd, root, e->name, number, err);
	const bool looked = version_fd >= 0 && disk_look(&disk, version_fd, shown, false, err) == WN_OK;
	if (looked && disk.has_manifest)
		wn_fail(err, WN_IO, "%s: the version has become complete since it was looked at, start again", shown);
	else if (looked)
		wn_fail(err, WN_NOT_FOUND, "%s/winnow.json: found no such file, the version is not complete", shown);
	const int fds[] = {version_fd, model_fd, root_fd};
	for (int i = 0; i < 3; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return err->code;
}
