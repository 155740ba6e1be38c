/* prompt.c: template pieces in, ids out; see prompt.h for the rules. All scratch is on the stack (24 KiB). */
#include "model/prompt.h"

#include <stdbool.h>
#include <string.h>

#define MAX_PIECES 5        /* frame {text} frame {assist} frame, or the other way round */
#define MAX_CONTROL_BYTES 64 /* longest bracketed token looked for in user text */

typedef enum piece_kind { PIECE_FRAME, PIECE_TEXT, PIECE_ASSIST } piece_kind;

typedef struct piece {
	piece_kind kind;
	const char *at;
	size_t len;
} piece;

/* Splits the template at its placeholders. */
static wn_code split_template(const char *tmpl, piece *pieces, int *num, wn_error *err)
{
	static const char *const names[] = {"{text}", "{assist}"};
	bool seen[2] = {false, false};
	const char *start = tmpl, *p = tmpl;
	int n = 0;
	while (*p) {
		int which = !strncmp(p, names[0], 6) ? 0 : !strncmp(p, names[1], 8) ? 1 : -1;
		if (which < 0) {
			p++;
			continue;
		}
		if (seen[which])
			return wn_fail(err, WN_INVALID, "prompt: %s stands in it twice, expected once", names[which]);
		seen[which] = true;
		if (p > start)
			pieces[n++] = (piece){PIECE_FRAME, start, (size_t)(p - start)};
		pieces[n++] = (piece){which ? PIECE_ASSIST : PIECE_TEXT, NULL, 0};
		start = p += strlen(names[which]);
	}
	if (p > start)
		pieces[n++] = (piece){PIECE_FRAME, start, (size_t)(p - start)};
	if (!seen[0])
		return wn_fail(err, WN_INVALID, "prompt: \"{text}\" is not in it");
	*num = n;
	return WN_OK;
}

/* Appends the ids of one piece to ids[*count..max). *count goes on counting past max, and nothing past max is written:
 * the caller sees that it was cut. The rest is still encoded, since invalid UTF-8 behind the cut is an error too. */
static wn_code append(const tokenizer *t, const char *s, size_t len, int32_t *ids, size_t max, size_t *count, wn_error *err)
{
	if (len == 0)
		return WN_OK;
	size_t at = *count < max ? *count : max, n = 0;
	wn_error local = {0};
	wn_code rc = tokenizer_encode(t, s, len, false, ids + at, max - at, &n, &local);
	if (rc != WN_OK && rc != WN_TOO_LARGE) /* the caller names the field */
		return wn_fail(err, rc, "%s", !strncmp(local.message, "text: ", 6) ? local.message + 6 : local.message);
	if (rc == WN_TOO_LARGE && n <= max - at)
		n = max - at + 1;
	*count += n;
	return WN_OK;
}

/* Does text[0..len) start with the spelling of a bracketed token? */
static bool spells_control(const tokenizer *t, const char *text, size_t len)
{
	char close = *text == '<' ? '>' : ']', buf[MAX_CONTROL_BYTES + 1];
	size_t limit = len < MAX_CONTROL_BYTES ? len : MAX_CONTROL_BYTES;
	for (size_t i = 1; i < limit; i++) {
		if (text[i] != close)
			continue;
		memcpy(buf, text, i + 1);
		buf[i + 1] = 0;
		if (tokenizer_token_id(t, buf) >= 0)
			return true;
	}
	return false;
}

/* User text: cut in two behind the bracket wherever a control token is spelled. */
static wn_code encode_user(const tokenizer *t, const char *text, int32_t *ids, size_t max, size_t *count, wn_error *err)
{
	size_t len = strlen(text), start = 0;
	*count = 0;
	for (size_t i = 0; i < len; i++) {
		if ((text[i] != '<' && text[i] != '[') || !spells_control(t, text + i, len - i))
			continue;
		wn_code rc = append(t, text + start, i + 1 - start, ids, max, count, err);
		if (rc)
			return rc;
		start = i + 1;
	}
	return append(t, text + start, len - start, ids, max, count, err);
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

wn_code prompt_encode(const tokenizer *t, const char *prompt_template, int max_text_tokens, const char *text,
                      const char *assist, int32_t *ids, int *count, wn_error *err)
{
	piece pieces[MAX_PIECES];
	int num = 0;
	int32_t frame[PROMPT_MAX_TOKENS], words[PROMPT_MAX_TOKENS], extra[PROMPT_MAX_TOKENS];
	size_t frame_end[MAX_PIECES], frame_len = 0, text_len = 0, assist_len = 0;
	*count = 0;
	if (max_text_tokens < 1 || max_text_tokens > PROMPT_MAX_TOKENS)
		return wn_fail(err, WN_INVALID, "max_text_tokens: found %d, expected 1 to %d", max_text_tokens, PROMPT_MAX_TOKENS);
	size_t max = (size_t)max_text_tokens;
	wn_code rc = split_template(prompt_template, pieces, &num, err);
	bool has_assist = false;
	for (int i = 0; rc == WN_OK && i < num; i++) {
		if (pieces[i].kind == PIECE_FRAME)
			rc = append(t, pieces[i].at, pieces[i].len, frame, max, &frame_len, err);
		has_assist |= pieces[i].kind == PIECE_ASSIST;
		frame_end[i] = frame_len;
	}
	if (rc)
		return wn_fail_prefix(err, "prompt");
	if (frame_len > max)
		return wn_fail(err, WN_TOO_LARGE, "prompt: its frame alone takes more than max_text_tokens = %d", max_text_tokens);
	size_t room = max - frame_len;
	if ((rc = encode_user(t, text ? text : "", words, room, &text_len, err)))
		return wn_fail_prefix(err, "text");
	if (has_assist && (rc = encode_user(t, assist ? assist : "", extra, room, &assist_len, err)))
		return wn_fail_prefix(err, "assist");
	if (text_len > room || text_len + assist_len > room) {
		size_t left = assist_len < room ? room - assist_len : 0;
		size_t half = smaller(text_len, room / 2);
		text_len = smaller(text_len, left > half ? left : half);
		assist_len = smaller(assist_len, room - text_len);
	}
	size_t n = 0, from = 0;
	for (int i = 0; i < num; i++) {
		const int32_t *src = pieces[i].kind == PIECE_FRAME ? frame + from : pieces[i].kind == PIECE_TEXT ? words : extra;
		size_t len = pieces[i].kind == PIECE_FRAME ? frame_end[i] - from
		             : pieces[i].kind == PIECE_TEXT ? text_len : assist_len;
		memcpy(ids + n, src, len * sizeof *ids);
		n += len;
		from = frame_end[i];
	}
	if (n == 0)
		return wn_fail(err, WN_INVALID, "prompt: no token at all (empty text in a template without a frame)");
	*count = (int)n;
	return WN_OK;
}

wn_code prompt_encode_verbalizer(const tokenizer *t, const char *verbalizer, int32_t *ids, int *count, wn_error *err)
{
	size_t n = 0;
	*count = 0;
	wn_code rc = append(t, verbalizer, strlen(verbalizer), ids, VERBALIZER_MAX_TOKENS, &n, err);
	if (rc)
		return wn_fail_prefix(err, "verbalizer \"%.60s\"", verbalizer);
	if (n == 0)
		return wn_fail(err, WN_INVALID, "verbalizer: empty, expected text");
	if (n > VERBALIZER_MAX_TOKENS)
		return wn_fail(err, WN_TOO_LARGE, "verbalizer \"%.60s\": more than %d tokens", verbalizer, VERBALIZER_MAX_TOKENS);
	*count = (int)n;
	return WN_OK;
}

wn_code prompt_check(const tokenizer *t, const char *prompt_template, int max_text_tokens, wn_error *err)
{
	/* One letter, so that a template without a frame is not taken for an empty prompt. */
	int32_t ids[PROMPT_MAX_TOKENS];
	int count;
	return prompt_encode(t, prompt_template, max_text_tokens, "a", "", ids, &count, err);
}
