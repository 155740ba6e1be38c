/* versions.h: what is known of every version of every model: on disk, tried, loaded; and which one is to be loaded
 * next.
 *
 * The manager's thread owns the table and alone changes it; it does so under the manager's lock, which others take to
 * read. Decisions are pure functions of the table and the time. */
#ifndef WINNOW_SERVER_VERSIONS_H
#define WINNOW_SERVER_VERSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/policy.h"
#include "server/registry_disk.h"

/* A version's files must have been at rest for this long before it is tried: somebody may be copying them. */
#define VERSION_SETTLE_NS 250000000
#define VERSION_MAX_RETRY_NS ((int64_t)300000000000)

typedef struct version_entry {
	int number;
	bool on_disk, loaded, loading;
	bool unmet; /* by the scan under way: whoever reads meanwhile finds on_disk as it was */
	disk_state disk;
	uint64_t loaded_fingerprint; /* of the files that are loaded, when it is */
	int64_t seen_ns;  /* CLOCK_MONOTONIC, when `disk` was first like this */
	bool unloaded;    /* by command: not again before another command, or other files */
	bool was_unloaded; /* before the command under way, which may have to put it back */
	bool failed;      /* it was tried with exactly these files: not again before they change, or before retry_ns */
	int64_t retry_ns; /* CLOCK_MONOTONIC; 0: there is no such time */
	int retries;      /* that were planned since another chance was given */
	char reason[480]; /* why it is not served, "" when there is nothing to say; UTF-8 */
} version_entry;

typedef struct model_entry {
	char name[MODEL_NAME_SIZE];
	bool wanted; /* configured, or loaded by command, and not unloaded since */
	version_policy policy;
	int held;                /* this version was chosen, and the policy waits; 0: the policy decides */
	const char *held_by;     /* who chose it, for messages: "command", "a trial" */
	char unseen[200];        /* why the last look at its directory failed, "" when it did not: what is known stays */
	bool unseen_told;        /* in the log (the manager's thread only) */
	bool absent_told[REGISTRY_MAX_VERSIONS]; /* of policy.numbers[i], the same */
	int primary;             /* the loaded version that answers, 0: none */
	int candidate;           /* the loaded version on trial beside it, 0: none */
	version_entry *versions; /* owned, ascending numbers */
	size_t count, room;
	uint64_t swaps, failures[LOAD_STEP_COUNT];
	trial *trial;     /* the candidate's, or the last one's; one reference, or NULL */
	int trial_number; /* its version */
	uint64_t promoted, rolled_back;
} model_entry;

void model_entry_free(model_entry *e);

/* Cut where `reason` ends, and UTF-8 whatever text is: messages quote what lay on disk. */
void version_set_reason(version_entry *v, const char *text);

/* NULL when there is no such version. */
version_entry *versions_find(const model_entry *e, int number);

/* What a look at the disk found; an entry is made when there is none (NULL on no memory). Other files than before clear
 * what was said of them. */
version_entry *versions_seen(model_entry *e, int number, const disk_state *disk, int64_t now_ns);
/* It is there, and that is all that a look found. */
void version_met(version_entry *v);
/* It was tried, in vain. retry_after_ns: what it lacked may be there later, so it is tried again after this, twice this, and so on
 * up to VERSION_MAX_RETRY_NS; 0: the version itself is at fault. */
void version_set_failed(version_entry *v, const char *why, int64_t now_ns, int64_t retry_after_ns);
/* Whatever was said of it, it may be tried. */
void version_give_another_chance(version_entry *v);
/* Whether v is loaded, from the files on disk now or from files that are gone. */
bool version_is_current(const version_entry *v);
/* Between these versions_seen or version_met is called for each that is on disk. The others are not, then, and forgotten unless loaded. */
void versions_begin_scan(model_entry *e);
void versions_end_scan(model_entry *e);

/* The version to load now, or 0; *again_ns (0: none) is when to ask again because something has not settled yet, or is to be tried
 * again. With at_once nothing needs to settle: at the start, and on command. */
int versions_next(const model_entry *e, int64_t now_ns, bool at_once, int64_t *again_ns);

/* The loaded version that should answer, 0 when none should or none is loaded. */
int versions_primary(const model_entry *e);
/* Whether policy.numbers[i] is wanted and nowhere: neither on disk nor loaded. */
bool versions_absent(const model_entry *e, int i);
/* Whether one that the policy could have chosen is loaded. */
bool versions_satisfy_policy(const model_entry *e);
/* Whether a loaded version stays loaded now that `primary` answers. */
bool versions_stay(const model_entry *e, int number);

#endif
