/* prompt.h: an ad's words to the token ids that stand between the query embeddings and the answer.
 *
 * The prompt template of winnow.json is a frame with the placeholders {text} and {assist} (each at most once, {text} at
 * least once). Frame, text and assist are encoded piece by piece and joined, always without the tokenizer's
 * post_processor (add_special = false: a template that wants a leading </s> spells it), so that
 *   - the frame's ids never depend on what a user wrote: a constant prefix stays constant, a cut never reaches it;
 *   - control tokens such as </s> work in the frame and are plain characters in the user's words: a piece of user text
 *     that spells a bracketed token of the vocabulary (<...>, [...]) is encoded in two halves, so no merge and no
 *     added token can produce it;
 *   - "{assist}" inside the text stays what it is.
 * The answer follows the prompt directly: verbalizer ids behind prompt ids. Serving scores exactly those; training may put
 * one end token behind them (prune/batch.h), which teaches where an answer ends and changes nothing before it.
 *
 * Trainer, server and command line build prompts with these functions only. Pure: any thread may call them; no
 * allocation of its own. */
#ifndef WINNOW_MODEL_PROMPT_H
#define WINNOW_MODEL_PROMPT_H

#include <stdint.h>

#include "base/error.h"
#include "model/tokenizer.h"

#define PROMPT_MAX_TOKENS 2048    /* the largest max_text_tokens */
#define VERBALIZER_MAX_TOKENS 64  /* the longest answer */

/* Writes the prompt's ids (at most max_text_tokens) and their number. text and assist are UTF-8, "" or NULL when there is
 * none. When they do not fit beside the frame, text loses tokens from its end first, but keeps half of the room (a long
 * assist must not push the advertised words out); then assist does. Errors: WN_INVALID for invalid UTF-8 or a malformed
 * template, WN_TOO_LARGE when the frame alone exceeds max_text_tokens. */
wn_code prompt_encode(const tokenizer *t, const char *prompt_template, int max_text_tokens, const char *text,
                      const char *assist, int32_t *ids, int *count, wn_error *err);

/* The ids of a label's verbalizer, at most VERBALIZER_MAX_TOKENS. WN_INVALID when it is empty. */
wn_code prompt_encode_verbalizer(const tokenizer *t, const char *verbalizer, int32_t *ids, int *count, wn_error *err);

/* Checks a template by encoding it with no text at all. */
wn_code prompt_check(const tokenizer *t, const char *prompt_template, int max_text_tokens, wn_error *err);

#endif
