/* compress_config.h: everything `winnow-prune compress` can be told, as one table of YAML keys (compress_config.c). */
#ifndef WINNOW_PRUNE_COMPRESS_CONFIG_H
#define WINNOW_PRUNE_COMPRESS_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/yaml_config.h"
#include "model/hf_config.h"
#include "prune/adamw.h"
#include "prune/augment.h"
#include "prune/compress/distill_loss.h"
#include "prune/compress/keep.h"
#include "prune/compress/planner.h"
#include "prune/compress/stages.h"

/* The student's shape as it can be given by hand; 0: as the teacher's. */
typedef struct final_shape {
	int num_hidden_layers, hidden_size, num_attention_heads, head_dim, intermediate_size;
} final_shape;

typedef enum student_start {
	START_PRUNED,  /* what is left of the teacher */
	START_SCRATCH, /* random weights of the final shape: the baseline that pruning must beat */
} student_start;

typedef struct compress_config {
	char *name, *run_dir, *teacher;
	int64_t seed;
	int threads, precision, start;
	char *data_dir, *split, *validation, *test, *unlabelled_split, *cache_dir;
	int64_t samples, unlabelled_ads, recombined, unlabelled;
	double ads_share, cache_scale;
	int views;
	/* the target: a number to reach, or a shape by hand */
	int target_kind;   /* index into TARGET_KINDS: none, or 1 + target_kind of planner.h */
	double target, target_tolerance;
	int request_tokens, target_threads, target_precision;
	plan_limits limits;
	final_shape final[NUM_COMPONENTS];
	int final_queries;
	/* how to get there */
	string_list stages;
	int importance, block_choice, importance_batches, width_multiple;
	int batch_size, micro_batch;
	double learning_rate, min_learning_rate, finish_learning_rate;
	int64_t warmup_steps, finish_steps;
	distill_weights loss;
	double finish_hidden; /* loss.hidden behind the last slice */
	int64_t teacher_cache_mb;
	adamw_options adamw;
	double clip_norm;
	augment_options augment;
	int64_t eval_every, checkpoint_every, log_every_ns;
	int eval_batch, latency_runs;
	char *export_dir;
	int export_dtype;
} compress_config;

extern const config_schema COMPRESS_CONFIG_SCHEMA;
/* What a resumed run may not change (prune/run_changes.h): its shapes follow from it, which structures it keeps, and what a step
 * learns from. */
extern const char *const COMPRESS_FIXED_KEYS[];

/* Loads the file, applies the overrides ("key=value"), and checks what one key cannot. */
wn_code compress_config_load(compress_config *out, const char *path, const char *const *sets, int num_sets, wn_error *err);
void compress_config_free(compress_config *c);
/* The parsed stages into out [MAX_STAGES]; returns their number (checked by compress_config_load). */
int compress_config_stages(const compress_config *c, stage *out);
/* The final shape given by hand, over the teacher's. */
wn_code compress_config_shape(const compress_config *c, const blip2_config *teacher, blip2_config *out, wn_error *err);

#endif
