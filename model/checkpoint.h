/* checkpoint.h: a model directory in, a model out, and back.
 *
 * A directory holds config.json, model.safetensors (or shards), tokenizer.json, preprocessor_config.json and, for our own
 * models, winnow.json. Only config and weights are required to run `forward`; the rest is NULL/absent when missing. */
#ifndef WINNOW_MODEL_CHECKPOINT_H
#define WINNOW_MODEL_CHECKPOINT_H

#include <stdbool.h>

#include "base/error.h"
#include "model/blip2.h"
#include "model/image.h"
#include "model/manifest.h"
#include "model/precision.h"
#include "model/tensor.h"
#include "model/tokenizer.h"
#include "model/weight_source.h"

typedef struct checkpoint {
	blip2 *model;              /* owned */
	weight_source *source;     /* owned, with leave_weights: where model's weights are yet to come from; else NULL */
	tokenizer *tokenizer;      /* owned, NULL when the directory has none */
	bool has_image_processor;
	image_processor image_processor; /* defaults for config.image_size when the file is absent */
	bool has_manifest;
	manifest manifest;
	dtype stored_dtype;        /* of the first matrix in the file */
	bool stores_int8;          /* some matrix is I8 */
	char digest[72];           /* "sha256:" + hex over the weight file(s) */
} checkpoint;

typedef struct checkpoint_options {
	bool verify_digests; /* compare every file with winnow.json first */
	bool skip_digest;    /* do not hash the weights (large plain checkpoints, debug commands) */
	bool leave_weights;  /* check the weight files, but leave their content to whoever fills the model from `source` */
	bool read_weights;   /* read the weight files instead of mapping them (safetensors_read_dir) */
} checkpoint_options;

/* Loads and checks everything; *out zeroed on failure. Every tensor the shapes need must be there with its shape; an extra
 * tensor that is not a known duplicate (lm_head, position_ids) is an error that names it. */
wn_code checkpoint_load(checkpoint *out, const char *dir, const checkpoint_options *opt, wn_error *err);
void checkpoint_close(checkpoint *c);
/* What it is to run in unless somebody says otherwise: what winnow.json says beside "quantization"; without that int8 when it stores
 * such weights, else f32. */
precision checkpoint_precision(const checkpoint *c);

/* Parts of a directory without its weights, for tools that need no more. The tokenizer is NULL, and the processor has the
 * defaults for c->image_size (*present false), when the file is absent; both are checked against c. */
wn_code checkpoint_load_tokenizer(tokenizer **out, const char *dir, const blip2_config *c, wn_error *err);
wn_code checkpoint_load_image_processor(image_processor *out, bool *present, const char *dir, const blip2_config *c,
                                        wn_error *err);

/* May checkpoint_save write dir? It may be absent, empty, or a model directory, which is replaced: a mistyped path must not cost
 * somebody's files. WN_INVALID otherwise, WN_IO when it cannot be read. */
wn_code checkpoint_check_target(const char *dir, wn_error *err);

/* Writes config.json and model.safetensors (dtype d), preprocessor_config.json, winnow.json with digests, and copies
 * tokenizer.json from tokenizer_path (may be NULL) into `dir`, which appears whole by rename (an existing dir is replaced). */
wn_code checkpoint_save(const char *dir, const blip2 *m, const manifest *man, const image_processor *ip,
                        const char *tokenizer_path, dtype d, wn_error *err);

/* The same with dtypes [blip2_num_params(m)]: each parameter's own; DTYPE_I8 (matrices only) is stored with its rows' scales. The
 * manifest says what that is for: its precision and quantization are written as they are. */
wn_code checkpoint_save_quantized(const char *dir, const blip2 *m, const manifest *man, const image_processor *ip,
                                  const char *tokenizer_path, const dtype *dtypes, wn_error *err);

#endif
