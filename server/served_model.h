/* served_model.h: one version of a model, loaded, with a session for every inference thread.
 *
 * Immutable but for its sessions, each of which belongs to one thread. It lives as long as somebody holds a reference:
 * the registry while it is served, every request that it works on to its end. So replacing the registry's pointer
 * disturbs nobody, and the last one to leave frees the memory; or hands it to `retire`, because giving hundreds of
 * megabytes back is no work for a thread that answers requests. */
#ifndef WINNOW_SERVER_SERVED_MODEL_H
#define WINNOW_SERVER_SERVED_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "model/classifier.h"
#include "server/config.h"
#include "server/placement.h"

#define MODEL_NAME_SIZE    65
#define MODEL_VERSION_SIZE 24

typedef struct served_model served_model;
struct served_model {
	atomic_int references;
	classifier *classifier; /* owned */
	char name[MODEL_NAME_SIZE];
	char version[MODEL_VERSION_SIZE]; /* decimal number; "0" for a directory without one */
	int number;                       /* the same */
	char digest[72];
	uint64_t bytes;       /* model_memory_estimate when it was loaded, and its sessions */
	uint64_t fingerprint; /* of its files then (registry_disk.h) */
	int instances, threads; /* of each */
	classifier_session *sessions[SERVER_MAX_INSTANCES]; /* [i] is used by inference thread i alone */
	classifier_session *aside;                          /* the comparing thread's (compare.h), opened by it */
	atomic_uint_fast64_t aside_bytes;                   /* reckoned for that from the first trial on */
	void (*retire)(served_model *m, void *cls); /* called by the last to leave; NULL: model_free there and then */
	void *retire_cls;
	served_model *next_retired;
};

/* Where a load can fail: the metric's label. */
typedef enum load_step {
	LOAD_OPEN,      /* the directory and its kinds of files */
	LOAD_ROOM,      /* as many models or versions are loaded as may be */
	LOAD_BUDGET,    /* model.memory_budget */
	LOAD_DIGESTS,   /* the SHA-256 that winnow.json names */
	LOAD_CONTENT,   /* winnow.json, shapes, tokenizer, weights */
	LOAD_WARM_UP,   /* first runs */
	LOAD_SELF_TEST, /* its own sample gets another answer than its publisher got */
	LOAD_CHANGED,   /* replaced, edited or removed meanwhile */
	LOAD_STEP_COUNT
} load_step;
const char *load_step_name(load_step s);

typedef struct load_request {
	int dir_fd;        /* borrowed: read through this descriptor */
	const char *shown; /* its path in messages */
	const char *name;  /* "": as winnow.json says */
	int version;       /* 0: a directory without a number */
	const placement *placement; /* how many instances there are, and threads that will run the model; borrowed */
	int max_batch;
	int precision; /* server_config's */
	bool verify_digests;
	uint64_t file_bytes;
	uint64_t memory_left; /* LOAD_BUDGET when it takes more; UINT64_MAX: no limit */
} load_request;

/* Loads, checks and opens the sessions, each for as many threads as placement_threads finds, whatever the calling thread has
 * itself; one reference to *out. *step says where it failed. */
wn_code model_load(served_model **out, const load_request *q, load_step *step, wn_error *err);

/* What a directory of file_bytes bytes takes in memory at most, its sessions apart: its files while they are read, and the weights
 * packed for the engine, which runs in run_in. c says in what they are stored. */
uint64_t model_memory_estimate(uint64_t file_bytes, const checkpoint *c, precision run_in);

/* WN_TOO_LARGE when a budget has not this much left; `what` begins the message: "takes". */
wn_code model_check_budget(uint64_t bytes, uint64_t left, const char *what, wn_error *err);

void model_retain(served_model *m);
/* Gives one reference back and clears *m; the last one frees or retires the model. NULL is fine. */
void registry_release(served_model **m);
/* For whoever was handed a retired model. */
void model_free(served_model *m);

#endif
