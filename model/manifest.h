/* manifest.h: winnow.json, what a model directory says beyond Hugging Face's files.
 *
 * {
 *   "format": 1,                                         // required, as name is
 *   "name": "ad-audit",                                  // [A-Za-z0-9._-]{1,64}, no leading dot
 *   "prompt": "内容：{text} 补充：{assist} 判定：",      // {text}, {assist} are replaced; text after the queries
 *   "max_text_tokens": 96,                               // prompt tokens kept (default 96); {text} is cut first, never the frame
 *   "labels": [{"name": "gambling", "verbalizer": "赌博", "action": "block", "threshold": 0.5,
 *               "review_threshold": 0.2}, …],
 *   "widths": {"vision": [{"num_heads":3,"head_dim":64,"ffn_dim":768}, …], "qformer": [… "cross_num_heads", "cross_head_dim"],
 *              "text": […]},                             // only when config.json cannot express them
 *   "precision": "f32" | "bf16" | "int8",
 *   "quantization": { any JSON object: what an int8 model needs beside its tensors },
 *   "self_test": {"image": "gradient-1", "text": "…", "assist": "…", "probabilities": [0.81, …], "tolerance": 0.001},
 *                                                        // a sample and its answer (self_test.h); any object is read here
 *   "lineage": any JSON: teacher digest, stage, seeds, metrics,
 *   "files": {"model.safetensors": "sha256:…", …}
 * }
 *
 * With labels (2 to 64, names [A-Za-z0-9_.-]{1,63}, names and verbalizers unique, thresholds in [0, 1], by default 0.5 and
 * 0.2) a prompt is required; it holds {text} once, {assist} at most once and no other {placeholder}. A model that is no
 * classifier yet has neither. Unknown and duplicate keys are refused: a misspelt threshold must not become a default.
 *
 * Decision: the most probable label wins; its action is taken when its probability is at least `threshold`, "review" when
 * below it; a label with action "pass" gives "pass". When any blocking label has probability >= its review_threshold while
 * the winner passes, the suggestion is "review". */
#ifndef WINNOW_MODEL_MANIFEST_H
#define WINNOW_MODEL_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "base/error.h"
#include "model/hf_config.h"

#define MAX_LABELS 64

typedef enum action { ACTION_PASS, ACTION_REVIEW, ACTION_BLOCK } action;
const char *action_name(action a); /* "pass", "review", "block" */

/* Of a model, in registries' paths and in URLs too: [A-Za-z0-9._-]{1,64}, no leading dot. */
bool manifest_name_is_valid(const char *name);

typedef struct label_spec {
	char name[64];
	char verbalizer[128]; /* UTF-8, the text the LM answers with */
	action action;
	double threshold;
	double review_threshold;
} label_spec;

typedef struct manifest {
	char name[65];
	char *prompt; /* owned, NULL when the file has none */
	int max_text_tokens;
	int num_labels;
	label_spec labels[MAX_LABELS];
	char precision[8];
	json_t *lineage; /* owned, may be NULL */
	json_t *quantization; /* owned object, may be NULL */
	json_t *self_test;    /* owned object, may be NULL; of this model's answers: a derived model must not inherit it */
	json_t *widths;  /* owned, NULL when config.json says it all */
	json_t *files;   /* owned object name -> "sha256:…", may be NULL */
} manifest;

/* *out must be zeroed or closed. WN_NOT_FOUND when the file is absent (a plain checkpoint). */
wn_code manifest_read(manifest *out, const char *path, wn_error *err);
wn_code manifest_parse(manifest *out, const char *json, size_t len, wn_error *err);
/* Overlays "widths" on what config.json said; checks every number against the stacks. */
wn_code manifest_apply_widths(const manifest *m, blip2_config *c, wn_error *err);
/* Fills m->widths from c when config.json cannot express c, clears it otherwise. */
wn_code manifest_set_widths(manifest *m, const blip2_config *c, wn_error *err);
/* Hashes every regular file of dir (except winnow.json and hidden files) into m->files. */
wn_code manifest_digest_files(manifest *m, const char *dir, wn_error *err);
/* Compares every file named in m->files with its SHA-256: WN_INVALID names the first that differs, is absent or is a symbolic
 * link, or a further *.json or *.safetensors (all that is read of a model is one or the other). WN_OK when m has no files. */
wn_code manifest_verify(const manifest *m, const char *dir, wn_error *err);
/* WN_INVALID names the key that manifest_parse would refuse: before hours are spent on the model it belongs to. */
wn_code manifest_check(const manifest *m, wn_error *err);
/* Atomic: temporary, fsync, rename. What manifest_check refuses is not written. */
wn_code manifest_write(const manifest *m, const char *path, wn_error *err);
void manifest_close(manifest *m);

#endif
