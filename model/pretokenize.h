/* pretokenize.h: text -> words, as the GPT-2 pattern of `tokenizers`' ByteLevel pre-tokenizer splits it. Pure functions. */
#ifndef WINNOW_MODEL_PRETOKENIZE_H
#define WINNOW_MODEL_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Offset of the first byte that is not well-formed UTF-8 (surrogates and overlong forms are not), len when all is. */
size_t utf8_valid_prefix(const char *s, size_t len);
/* Makes s UTF-8: a '?' for every byte that is not part of it, such as those of a character that a precision or a buffer's end cut. */
void utf8_repair(char *s);

/* Bytes at s[0..len) (len > 0) that form one character, or, negated, that U+FFFD replaces: the "maximal subpart" of the
 * Unicode standard, as Rust's from_utf8_lossy. */
int utf8_sequence(const char *s, size_t len);

/* End offset (bytes) of the word that starts at `start` < len; s must be well-formed. With lead_space the word begins
 * with a virtual U+0020 before s[start] (add_prefix_space), and the end may equal start: the word is that space alone.
 * Pattern: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
size_t pretokenize_next(const char *s, size_t len, size_t start, bool lead_space);

/* The classes that added tokens look at: `\w` of Rust's regex (single_word), and White_Space (lstrip, rstrip). */
bool char_is_word(uint32_t c);
bool char_is_space(uint32_t c);
/* The character that starts at s[*i] / ends before s[*i]; *i moves over it. Well-formed text only. */
uint32_t utf8_next(const char *s, size_t *i);
uint32_t utf8_prev(const char *s, size_t *i);

/* GPT-2's printable stand-in for each byte: a code point below 0x180, so one or two bytes of UTF-8. */
uint32_t byte_to_char(unsigned char b);
int char_to_byte(uint32_t c);                       /* -1 when c stands for no byte */
int byte_to_utf8(unsigned char b, char out[2]);     /* writes byte_to_char(b), returns its length */

#endif
