/* safetensors.h: read (mmap) and write Hugging Face's safetensors files, single or sharded.
 *
 * Every offset and shape is checked against the file before anything is used; a lying header is one clear error. What the
 * reference library refuses is refused here too: overlapping tensors, holes, bytes after the last tensor.
 * Format: https://github.com/huggingface/safetensors (8-byte little-endian header length, JSON header, data).
 *
 * The file is mapped, not read: whoever truncates it afterwards makes the next access to the missing pages a SIGBUS. Writers
 * must replace model files by rename (as safetensors_write does), which leaves an open map on the old file intact. */
#ifndef WINNOW_MODEL_SAFETENSORS_H
#define WINNOW_MODEL_SAFETENSORS_H

#include <stddef.h>

#include "base/error.h"
#include "model/tensor.h"

typedef struct safetensors safetensors; /* immutable after open; owns the maps its tensors point into */

/* Opens one .safetensors file. Errors name the path (and the tensor). */
wn_code safetensors_open(safetensors **out, const char *path, wn_error *err);
/* Opens DIR/model.safetensors, or the shards that DIR/model.safetensors.index.json lists (plain names, no symbolic links:
 * the content of DIR must not reach outside it). WN_NOT_FOUND when neither exists. */
wn_code safetensors_open_dir(safetensors **out, const char *dir, wn_error *err);
/* The same with the files read into memory instead of mapped: for a process that must survive whatever happens to them. */
wn_code safetensors_read_dir(safetensors **out, const char *dir, wn_error *err);
void safetensors_close(safetensors **st);

size_t safetensors_count(const safetensors *st);
/* i-th tensor in name order; *name stays valid until close. */
const tensor *safetensors_at(const safetensors *st, size_t i, const char **name);
/* By name; NULL when absent. */
const tensor *safetensors_find(const safetensors *st, const char *name);
/* The files behind it (1, or the shards in name order), as opened: for digests and messages. */
size_t safetensors_num_files(const safetensors *st);
const char *safetensors_file(const safetensors *st, size_t i);
/* Value of a string entry of the first file's __metadata__, or NULL. */
const char *safetensors_metadata(const safetensors *st, const char *key);

typedef struct safetensors_entry {
	const char *name;
	tensor tensor;  /* what to store; data in host memory */
} safetensors_entry;

/* Writes the entries to `path` through a temporary in the same directory, fsync and rename: the old file or the whole new one,
 * never a part. The data section starts 64-byte aligned and holds the entries by falling element size, then name, so that
 * each is aligned to its element; the format allows no padding between tensors. Metadata {"format":"pt"} is always written,
 * so that transformers loads the file. */
wn_code safetensors_write(const char *path, const safetensors_entry *entries, size_t count, wn_error *err);

#endif
