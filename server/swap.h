/* swap.h: one version from disk to the point where it may answer.
 *
 *   open the directory -> look at its files -> budget, digests, content, every shape of every session (all at low priority) ->
 * the model's own self test on each inference thread that will serve it -> look at the files again
 *
 * It fails at the first thing that is not as it should be, and nothing that is served notices: the caller puts the
 * model into the registry only after all of it. The looks before and after are of the directory behind the name, so a
 * version that was replaced, edited or removed meanwhile is refused however well it loaded. */
#ifndef WINNOW_SERVER_SWAP_H
#define WINNOW_SERVER_SWAP_H

#include "server/placement.h"
#include "server/registry_disk.h"
#include "server/served_model.h"

typedef struct swap_options {
	const server_config *config; /* borrowed, as is placement */
	const placement *placement;
	/* Runs fn(arg) where nobody waits for it: the loader's thread; the caller's own at the start. */
	void (*run_aside)(void *cls, void (*fn)(void *arg), void *arg);
	/* Runs fn(arg) on inference thread i between two of its requests; false when it is stopping. */
	bool (*run_on)(void *cls, int instance, void (*fn)(void *arg), void *arg);
	void *cls;
	bool serving; /* requests are being answered meanwhile */
	void (*retire)(served_model *m, void *cls);
} swap_options;

/* Version `version` of `name` under config->registry_root, or config->model_dir when name is NULL. memory_left as in
 * load_request. *out has one reference; *step says where it failed. */
wn_code swap_bring_in(served_model **out, const swap_options *o, const char *name, int version, uint64_t memory_left,
		      load_step *step, wn_error *err);

#endif
