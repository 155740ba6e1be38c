/* run_reader.h: a run directory, as `train` and `compress` leave it, in structs that a report is written from.
 *
 *   RUN/manifest.json   what was run: identity (digests, seed), configuration; "command": "compress", or none for a training
 *   RUN/log.jsonl       one JSON object a line: what happened, in order (prune/train_log.h)
 *   RUN/plan.json       of a compression, optional: the teacher's and the planned shapes
 *   RUN/ablation.json   optional: the same student made in other ways
 *
 * A run may still go on, or have died by kill -9: a last line without its end is left out (and counted); a line that is damaged
 * in the middle of the log is an error with its number. Events and keys this reader does not know are skipped, so that
 * newer runs stay readable. A number that is absent, null, of another type or not sane (beyond 1e30) is NaN, a text is NULL, a
 * part is not `present`: the report leaves it out. A step that occurs twice (a run resumed without cutting its log) counts as
 * it was the last time; so does its validation, but each of several iterations that end at one step (an iteration may have none) has
 * its own. A validation without figures is none. Everything belongs to the run, and is gone with run_close. */
#ifndef WINNOW_PRUNE_REPORT_RUN_READER_H
#define WINNOW_PRUNE_REPORT_RUN_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/error.h"

enum { RUN_VISION, RUN_QFORMER, RUN_TEXT, RUN_COMPONENTS };
extern const char *const RUN_COMPONENT_KEYS[RUN_COMPONENTS];   /* "vision", "qformer", "text": in the files */
extern const char *const RUN_COMPONENT_TITLES[RUN_COMPONENTS]; /* "vision", "Q-Former", "language model": for people */

typedef struct run_class {
	const char *label;
	double precision, recall, f1, support;
} run_class;

typedef struct run_eval {
	bool present;
	const char *split; /* may be NULL */
	double samples, accuracy, macro_f1, ece, nll; /* shares from 0 to 1, nll in nats */
	const run_class *classes; /* [num_classes] */
	size_t num_classes;
} run_eval;

typedef struct run_block {
	int num_heads, head_dim, cross_num_heads, cross_head_dim, ffn_dim; /* cross_*: 0 without cross-attention */
} run_block;

typedef struct run_stack {
	int hidden_size, num_blocks;
	const run_block *blocks; /* [num_blocks] */
} run_stack;

typedef struct run_widths {
	bool present;
	run_stack stacks[RUN_COMPONENTS];
	int num_query_tokens;
} run_widths;

/* A model as the log or the plan knows it. */
typedef struct run_model {
	bool present;
	double parameters, flops, latency_ms;
	double cpu_seconds, joules; /* of one request; joules: measured (RAPL) */
	run_eval eval;
} run_model;

typedef struct run_iteration {
	int number; /* from 1, as its name has it: "003-inner" is 3 */
	const char *name;
	double parameters, flops, latency_ms, seconds;
	double score_lost[RUN_COMPONENTS]; /* importance that was cut away */
	run_eval before, after;            /* distillation */
	run_widths widths;                 /* the plan's */
} run_iteration;

/* What a step logs. */
typedef enum run_term {
	TERM_LOSS, TERM_NLL, TERM_KL, TERM_PAIR, TERM_RELATION, TERM_HIDDEN, TERM_ACCURACY, TERM_TOKEN_ACCURACY, TERM_LR,
	TERM_GRAD_NORM, TERM_SAMPLES_PER_S, NUM_TERMS
} run_term;

typedef struct run_step {
	int64_t step;
	int segment; /* index into run.segments */
	double terms[NUM_TERMS];
} run_step;

/* A stretch of steps that belong together: an iteration of a compression, a phase of a training. */
typedef struct run_segment {
	char name[32]; /* "3", "audit" */
	int64_t first_step;
} run_segment;

/* A validation on the way. */
typedef struct run_validation {
	int64_t step;
	int iteration;  /* of a compression; else 0 */
	char phase[32]; /* of a training; a compression's iteration as text; may be empty */
	bool best;
	double samples, loss, accuracy, macro_f1, ece, token_accuracy, first_token_accuracy, exact_match;
} run_validation;

typedef struct run_ablation_row {
	const char *name;
	const json_t *runs; /* an array of objects: the metrics of one seed each */
} run_ablation_row;

typedef struct run {
	const char *dir;      /* as given */
	bool compression;
	const char *winnow;   /* version that made it; may be NULL */
	const char *config;   /* YAML; may be NULL */
	const json_t *identity; /* an object; may be NULL */
	const json_t *changed; /* key -> [at the beginning, since the last resume]; NULL: nothing */

	bool has_plan;
	const char *target_kind; /* "latency_ms"; NULL: no target */
	double target_value;
	double predicted_ms, measured_ms; /* of the planned shape */
	run_widths teacher_widths, student_widths;

	run_model teacher;      /* with its evaluation before anything was cut */
	run_model final;        /* the student at the end */
	run_eval final_teacher; /* the teacher on the final's split */
	double final_teacher_ms; /* its latency, measured in turns with the final's; NaN: it was not */
	run_iteration *iterations;
	size_t num_iterations;
	run_step *steps;
	size_t num_steps;
	run_segment *segments;
	size_t num_segments;
	run_validation *validations;
	size_t num_validations;
	bool cut_line; /* the log ends in the middle of a line */

	bool has_ablation;
	run_ablation_row *ablation;
	size_t num_ablation;

	json_t *documents; /* owns every text and json above */
	void **memory;     /* owns every array above, but for those that grow line by line */
	size_t num_memory;
} run;

/* WN_NOT_FOUND without manifest.json or log.jsonl; WN_UNSUPPORTED for another format; WN_INVALID, naming file and line, for damage. */
wn_code run_open(run *out, const char *dir, wn_error *err);
void run_close(run *r);

#endif
