/* manager.h: what is loaded, when, and in whose place.
 *
 * One thread sleeps until the registry on disk changes (watch.h), a command comes or a model has to be freed; then it
 * looks at everything and does one thing after the other: load (swap.h, the heavy part on the loader's thread), put
 * into the registry, let go of what it replaces. It runs at normal priority because it takes the registry's lock.
 *
 *   HTTP thread: manager_submit -> manager thread: scan, load, swap -> command.done()
 *
 * A model's policy says which versions are wanted (policy.h). A command overrules it: loading a version by number holds
 * the model there, which is how one rolls back; loading without a number gives the model back to its policy. What is asked for is
 * loaded before anything else is touched, so a failure changes nothing that is served, on trial or held. The policy has not failed
 * while it has a version that suits it: then the command is carried out, and tells which better one could not be loaded.
 *
 * A trial (trial.h) puts a version beside the one that answers. While it runs, and after it, the model is held; loading the candidate
 * by number promotes it, unloading it takes it back, and the configured rules may do either by themselves. */
#ifndef WINNOW_SERVER_MANAGER_H
#define WINNOW_SERVER_MANAGER_H

#include <stdio.h>

#include <jansson.h>

#include "server/config.h"
#include "server/placement.h"
#include "server/reason.h"
#include "server/registry.h"
#include "server/versions.h"

typedef struct manager manager;

typedef struct manager_options {
	const server_config *config; /* must outlive the manager, as placement and registry must */
	const placement *placement;
	registry *registry;
	/* Runs fn(arg) on inference thread i between two of its requests; false when it is stopping. */
	bool (*run_on)(void *cls, int instance, void (*fn)(void *arg), void *arg);
	void *cls;
} manager_options;

/* Loads what the configuration names, in this thread. It succeeds when every model has a version that answers;
 * otherwise the error is that of the version that should have. */
wn_code manager_open(manager **out, const manager_options *opt, wn_error *err);
/* From here on versions come and go by themselves and by command. */
wn_code manager_start(manager *m, wn_error *err);
/* Ends the thread after what it is doing; commands that wait are answered REASON_DRAINING. */
void manager_stop(manager *m);
/* After manager_stop and when nobody but the registry holds a model. */
void manager_close(manager **m);

typedef enum command_kind { COMMAND_LOAD, COMMAND_UNLOAD } command_kind;

typedef struct model_command {
	command_kind kind;
	char name[MODEL_NAME_SIZE];
	int version; /* 0: none given */
	int percent; /* of COMMAND_LOAD: this share of the requests, as a trial; 0: it takes over */
	trial_mode mode;
	/* Called when outcome is set, in the manager's thread, or in the submitter's when the manager has stopped; the
	 * command is not touched afterwards. */
	void (*done)(struct model_command *c);
	void *cls;
	reason outcome; /* REASON_OK, _UNKNOWN_MODEL, _LOAD_FAILED, _DRAINING */
	char detail[480]; /* UTF-8: why not; with REASON_OK "", or what did not go as it should have */
	int answers; /* the version that answers now, 0: none */
	struct model_command *next;
} model_command;

/* The command is the manager's until done(). */
void manager_submit(manager *m, model_command *c);

/* The Open Inference Protocol's repository index: an array of {name, version, state, reason}; NULL on no memory. */
json_t *manager_index(manager *m, bool ready_only);

/* Counters and gauges in Prometheus' text format. */
void manager_metrics(manager *m, FILE *f);

#endif
