/* json_text.c: see json_text.h. jansson asks for memory through the two functions here.
 *
 * While a thread reads, what it gets is written down, and what it gives back is kept until the end. Refused memory does not go
 * back to jansson as NULL: it is a jump out of the reader (which holds no locks and keeps nothing from one text to the next), and
 * all that was written down is freed. Whatever else is asked of jansson, by whichever thread, is malloc and free as ever, so that
 * values outlive the reading and texts are free()'s. A writer is no place to jump out of (newer ones keep blocks of their own for
 * the digits of numbers): there it is enough to know that memory was refused. */
#include "base/json_text.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct {
	bool active;
	jmp_buf refused;
	void **blocks; /* [count], room for more: what jansson was given */
	size_t count, room;
	void *returned; /* the last block that jansson gave back; it begins with the address of the one before */
} reading;

static _Thread_local bool was_refused; /* outside a reading */

static void *take(size_t n)
{
	if (!reading.active) {
		void *plain = malloc(n);
		was_refused |= !plain;
		return plain;
	}
	if (reading.count == reading.room) {
		const size_t room = reading.room ? 2 * reading.room : 64;
		void **grown = reallocarray(reading.blocks, room, sizeof *grown);
		if (!grown)
			longjmp(reading.refused, 1);
		reading.blocks = grown;
		reading.room = room;
	}
	void *block = malloc(n > sizeof block ? n : sizeof block);
	if (!block)
		longjmp(reading.refused, 1);
	return reading.blocks[reading.count++] = block;
}

static void give_back(void *block)
{
	if (!reading.active) {
		free(block);
		return;
	}
	memcpy(block, &reading.returned, sizeof block);
	reading.returned = block;
}

/* Before anything is asked of jansson, and before the tests put theirs in front. */
__attribute__((constructor(1000))) static void hook(void) { json_set_alloc_funcs(take, give_back); }

/* The reading is over: frees what nobody has any more. */
static void end(bool refused)
{
	reading.active = false;
	for (size_t i = 0; refused && i < reading.count; i++)
		free(reading.blocks[i]);
	for (void *next; !refused && reading.returned; reading.returned = next) {
		memcpy(&next, reading.returned, sizeof next);
		free(reading.returned);
	}
	free(reading.blocks);
	reading.blocks = NULL;
	reading.count = reading.room = 0;
	reading.returned = NULL;
}

static void say_no_memory(json_error_t *e)
{
	if (!e)
		return;
	memset(e, 0, sizeof *e);
	strcpy(e->text, "out of memory");
	e->text[sizeof e->text - 1] = json_error_out_of_memory; /* where json_error_code() looks */
}

/* ---- a text in two parts ---- */

typedef struct parts {
	const char *data[2];
	size_t len[2];
} parts;

static size_t next_bytes(void *out, size_t size, void *cls)
{
	parts *p = cls;
	const int i = p->len[0] == 0;
	const size_t n = p->len[i] < size ? p->len[i] : size;
	memcpy(out, p->data[i], n);
	p->data[i] += n;
	p->len[i] -= n;
	return n;
}

json_t *json_read_without(const char *text, size_t len, size_t from, size_t to, size_t flags, json_error_t *e)
{
	parts p = {{text, from < to ? text + to : NULL}, {from, len - to}};
	reading.active = true;
	if (setjmp(reading.refused)) {
		end(true);
		say_no_memory(e);
		return NULL;
	}
	json_t *root = from < to ? json_load_callback(next_bytes, &p, flags, e) : json_loadb(text, len, flags, e);
	end(false);
	return root;
}

json_t *json_read(const char *text, size_t len, size_t flags, json_error_t *e)
{
	return json_read_without(text, len, 0, 0, flags, e);
}

char *json_write(const json_t *document, size_t flags)
{
	was_refused = false;
	char *text = json_dumps(document, flags);
	if (was_refused) {
		free(text);
		text = NULL;
	}
	return text;
}

wn_code json_read_code(const json_error_t *e) { return json_error_code(e) == json_error_out_of_memory ? WN_NOMEM : WN_INVALID; }
