/* run_dir.h: what every run directory has in common: its paths, its lock, and the manifest that says which run it is.
 *
 * manifest.json holds {"format": 1, "winnow": version, "identity": {…}, "config": YAML, …}. A resumed run must be the run
 * that was interrupted: its identity (digests of model, data and tokenizer, seed) has to be the same, its configuration need not
 * (run_changes.h): the manifest keeps the one it began with. */
#ifndef WINNOW_PRUNE_RUN_DIR_H
#define WINNOW_PRUNE_RUN_DIR_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/digest.h"
#include "base/error.h"

/* DIR/name into buf (PATH_MAX); refused when there would be no room for file names below it. */
wn_code run_dir_path(const char *dir, const char *name, char *buf, wn_error *err);
/* mkdir -p. */
wn_code run_dir_make(const char *path, wn_error *err);
/* Makes DIR and takes its lock; *fd is held until close. WN_IO when another process has it. Then removes what a run killed here
 * left half written: its models, checkpoints and files (file_sweep). */
wn_code run_dir_lock(const char *dir, int *fd, wn_error *err);
/* The same for a run of winnow-prune `command` ("train", "compress"). WN_INVALID when DIR holds a run and resume is false, and when
 * the run to be resumed is another command's. */
wn_code run_dir_open(const char *dir, const char *command, bool resume, int *fd_plus_1, wn_error *err);

/* DIR/manifest.json, the caller's; NULL when there is none. */
wn_code run_dir_read_manifest(json_t **out, const char *dir, wn_error *err);
/* Writes DIR/manifest.json from `identity` and the resolved configuration's text; `command` may be NULL (a training run).
 * check: an existing one must have the same identity (WN_INVALID names the key), and stays as it is. dry: nothing is read or written.
 * digest gets the identity's. */
wn_code run_dir_write_manifest(const char *dir, const char *command, const json_t *identity, const char *config, bool check, bool dry,
			       char digest[DIGEST_SIZE], wn_error *err);

#endif
