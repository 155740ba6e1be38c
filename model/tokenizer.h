/* tokenizer.h: byte-level BPE as in Hugging Face's tokenizer.json (GPT-2/OPT style), encode and decode.
 *
 * Source: `tokenizers` ByteLevel pre-tokenizer + BPE model + added tokens. Immutable after open: threads may share one.
 * What a file may contain is stated in tokenizer_json.c, which Unicode version counts in pretokenize.c. */
#ifndef WINNOW_MODEL_TOKENIZER_H
#define WINNOW_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define TOKENIZER_MAX_TEXT (4 << 20)     /* bytes of one encode call */
#define TOKENIZER_MAX_DECODED (64 << 20) /* bytes of one decode call, before U+FFFD takes the place of broken ones */

typedef struct tokenizer tokenizer;

/* Limits: 32 MiB of JSON, ids below 2^21, 2^22 merges, tokens of 4096 bytes, added tokens of 512. On failure *out is
 * NULL. Errors name the file (open) and the key: WN_NOT_FOUND (file or key absent), WN_IO, WN_INVALID, WN_TOO_LARGE,
 * WN_UNSUPPORTED (a variant of the format that is not run, never silently approximated), WN_NOMEM. */
wn_code tokenizer_open(tokenizer **out, const char *path, wn_error *err); /* path of a tokenizer.json */
wn_code tokenizer_parse(tokenizer **out, const char *json, size_t len, wn_error *err);
void tokenizer_close(tokenizer **t); /* clears *t; NULL inside is fine */

/* Encodes UTF-8 text[0..len) (invalid UTF-8: WN_INVALID; more than TOKENIZER_MAX_TEXT bytes: WN_TOO_LARGE and *count 0).
 * Writes the first `max` ids and sets *count to the number the text needs (> max: WN_TOO_LARGE, nothing else is lost).
 * Added tokens in the text are matched as `tokenizers` does. add_special runs the file's post_processor (e.g. OPT's
 * leading </s>) as encode(add_special_tokens=True) would. O(n log n); allocates only for words beyond 256 bytes. */
wn_code tokenizer_encode(const tokenizer *t, const char *text, size_t len, bool add_special, int32_t *ids, size_t max,
                         size_t *count, wn_error *err);

/* Bytes of the ids joined, UTF-8 with U+FFFD for broken sequences, as decode(skip_special_tokens=False); ids that no
 * token has decode to nothing, negative ones are WN_INVALID. *out is malloc'ed and NUL-terminated, the caller frees. The
 * _bytes form also tells the length, which matters when the text holds a U+0000. */
wn_code tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t count, char **out, wn_error *err);
wn_code tokenizer_decode_bytes(const tokenizer *t, const int32_t *ids, size_t count, char **out, size_t *out_len,
                               wn_error *err);

size_t tokenizer_vocab_size(const tokenizer *t); /* highest id + 1 */
/* Id of a token by its content (e.g. "</s>"), -1 when absent. */
int32_t tokenizer_token_id(const tokenizer *t, const char *content);

/* Trains a byte-level BPE on n texts and writes a tokenizer.json that `tokenizers` loads: vocabulary of exactly
 * vocab_size entries or fewer when the texts run out of pairs, specials first (ids 0..), then the 256 bytes, then merges
 * by falling pair count, ties broken as `tokenizers` BpeTrainer does, so that results are reproducible. */
typedef struct bpe_trainer_options {
	size_t vocab_size;
	const char *const *special_tokens; /* e.g. "<s>", "<pad>", "</s>", "<unk>" */
	size_t num_special_tokens;
	size_t min_frequency; /* pairs rarer than this are not merged; 0 means 2 */
	/* One of the special tokens, put first by encode(add_special), as OPT does with "</s>"; NULL: none. */
	const char *bos_token;
} bpe_trainer_options;
wn_code bpe_train(const char *path, const char *const *texts, size_t n, const bpe_trainer_options *opt, wn_error *err);

#endif
