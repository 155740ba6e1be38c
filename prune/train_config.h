/* train_config.h: everything `winnow-prune train` can be told, as one table of YAML keys (train_config.c).
 *
 * The phases are named sections run in the order `phases` gives: "caption" teaches the vision side to name what it sees
 * (a caption behind a constant prompt), "audit" teaches the verdicts (a label's verbalizer behind the ad's words). */
#ifndef WINNOW_PRUNE_TRAIN_CONFIG_H
#define WINNOW_PRUNE_TRAIN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/yaml_config.h"
#include "model/hf_config.h"
#include "model/manifest.h"
#include "prune/adamw.h"
#include "prune/augment.h"

typedef enum task { TASK_CAPTION, TASK_AUDIT } task;
enum { NUM_TASKS = 2 };
extern const char *const TASK_NAMES[]; /* "caption", "audit", NULL */

typedef enum modalities { MODALITIES_BOTH, MODALITIES_TEXT, MODALITIES_IMAGE } modalities;
extern const char *const MODALITY_NAMES[]; /* "both", "text", "image", NULL */

/* What matrix products run in; weights, moments and everything else are f32 either way (model/compute.h). */
typedef enum train_precision { TRAIN_F32, TRAIN_BF16 } train_precision;

typedef struct stack_shape {
	int hidden_size, num_hidden_layers, num_attention_heads, intermediate_size;
} stack_shape;

typedef struct phase_config {
	char *split, *validation; /* names of splits; validation "" = none */
	int64_t steps;            /* 0: `epochs` decides */
	double epochs;
	int batch_size, micro_batch;
	double learning_rate, min_learning_rate, vision_learning_rate;
	double vision_patch_share; /* of the patches, seen in a step of vision_first_steps */
	int64_t warmup_steps;
	int64_t vision_first_steps; /* only the vision stack learns, by blip2_vision_first */
	int64_t text_first_steps; /* then only the language model learns in these; see trainer.c */
	double caption_replay; /* audit only: the share of caption samples in every batch */
} phase_config;

typedef struct train_config {
	char *name, *run_dir, *init_from, *tokenizer;
	int64_t seed;
	int threads, modalities, precision;
	char *data_dir, *cache_dir;
	double cache_scale;
	int64_t limit;
	stack_shape vision, qformer, text;
	int image_size, patch_size, num_query_tokens, cross_attention_frequency, vocab_size, max_position_embeddings;
	char *prompt, *caption_prompt;
	int max_text_tokens, max_caption_tokens;
	bool end_token;
	string_list labels;
	string_list phases;
	phase_config phase[NUM_TASKS]; /* by task */
	adamw_options adamw;
	double clip_norm;
	augment_options augment;
	int64_t eval_every, eval_limit, checkpoint_every;
	int eval_batch;
	int64_t log_every_ns;
	char *export_dir;
	int export_dtype, export_from;
} train_config;

enum { EXPORT_F32, EXPORT_F16, EXPORT_BF16 };
enum { EXPORT_BEST, EXPORT_LAST };

extern const config_schema TRAIN_CONFIG_SCHEMA;
/* What a resumed run may not change (run_changes.h), beside what its identity holds: a checkpoint counts phases, and has learned the
 * answers. */
extern const char *const TRAIN_FIXED_KEYS[];

/* Loads the file, applies the overrides ("key=value"), and checks what one key cannot: phases, labels, micro-batches. */
wn_code train_config_load(train_config *out, const char *path, const char *const *sets, int num_sets, wn_error *err);
void train_config_free(train_config *c);

/* The phases in order: tasks[i] < NUM_TASKS. At most NUM_TASKS of them. */
int train_config_phases(const train_config *c, task tasks[NUM_TASKS]);

/* A phase of `steps` must leave some of them to the whole model: fewer than vision_first_steps + text_first_steps + 1 is
 * WN_INVALID. train_config_load checks phases that say their steps; with `epochs` they are known once the data is read. */
wn_code train_config_stretches(const train_config *c, task t, int64_t steps, wn_error *err);

/* name, prompt, labels and limits as winnow.json has them; *out zeroed before. labels may be empty (then num_labels 0). */
wn_code train_config_manifest(const train_config *c, manifest *out, wn_error *err);

/* The model's shapes when it starts from scratch. Every rule of the architecture is checked by blip2_create. */
wn_code train_config_model(const train_config *c, blip2_config *out, wn_error *err);

#endif
