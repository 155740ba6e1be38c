/* request.h: one request's memory and state, from its first header to its access-log line.
 *
 * Three lifetimes meet here: the model's (a reference), the pool's (buffers that are kept from request to request) and
 * the request's (everything request_pool_put clears). A request is owned by exactly one thread at a time: the HTTP
 * thread of its connection while it is received or answered; in between the stage that took it out of a queue, or the thread that
 * takes those out whose deadline has passed there. The hand-overs are the queues and MHD_resume_connection. */
#ifndef WINNOW_SERVER_REQUEST_H
#define WINNOW_SERVER_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "model/classifier.h"
#include "server/keys.h"
#include "server/reason.h"
#include "server/registry.h"

#define REQUEST_ID_SIZE 65
#define DATA_ID_SIZE    129
#define RESULT_KEY_SIZE 32

/* A growing buffer; bytes it holds count against the budget, so that many large bodies cannot exhaust memory. */
typedef struct byte_budget {
	atomic_size_t used;
	size_t limit;
} byte_budget;

typedef struct bytes {
	unsigned char *data; /* NULL while cap is 0 */
	size_t len, cap;
	byte_budget *budget; /* may be NULL */
} bytes;

/* WN_TOO_LARGE when the budget is used up, WN_NOMEM. */
wn_code bytes_reserve(bytes *b, size_t cap, wn_error *err);
/* Grows by doubling, never beyond max (WN_TOO_LARGE). */
wn_code bytes_append(bytes *b, const void *data, size_t len, size_t max, wn_error *err);
/* Copies data and a NUL. */
wn_code bytes_set_string(bytes *b, const char *data, size_t len, wn_error *err);
void bytes_free(bytes *b);

typedef enum stage { STAGE_RECEIVE, STAGE_QUEUE, STAGE_DECODE, STAGE_PREPROCESS, STAGE_INFERENCE, STAGE_COUNT } stage;
const char *stage_name(stage s);

typedef struct request request;
struct request {
	request *next_free;

	/* who asks, and for what */
	char id[REQUEST_ID_SIZE];
	char data_id[DATA_ID_SIZE];
	char model_name[MODEL_NAME_SIZE + 16]; /* NAME or NAME/VERSION; "" = the default model */
	char key_name[KEY_NAME_SIZE];        /* of the key it came with; "" = none, or not a valid one */
	char method[16];
	char path[128]; /* cut, for the log */
	char content_type[256];

	/* what was sent; image points into body or decoded */
	bytes body, decoded, text, assist;
	size_t bytes_in; /* of the body, whatever became of it */
	const unsigned char *image;
	size_t image_len;
	bool has_text;

	/* what the model sees and says */
	served_model *model; /* one reference, or NULL */
	served_model *other; /* the other version of a trial (registry_choose); one reference, or NULL */
	trial *trial;        /* one reference, or NULL */
	bytes pixels;        /* float [3][size][size] */
	bytes prompt;        /* int32_t [max_text_tokens] */
	int prompt_len;
	float probs[MAX_LABELS];
	verdict verdict;
	uint8_t result_key[RESULT_KEY_SIZE]; /* with a result cache: what its answer is kept under */
	bool cached;                         /* answered from there */

	/* CLOCK_MONOTONIC nanoseconds; 0 = not reached */
	int64_t begun_ns, received_ns, deadline_ns, queued_ns, answered_ns;
	int64_t deadline_budget_ns; /* from X-Deadline-Ms or the config */
	int64_t stage_ns[STAGE_COUNT];

	/* the answer */
	reason outcome;
	char detail[512];
	int retry_after_s; /* 0 = as long as the queue says */
	char *answer; /* malloc'ed, or NULL */
	size_t answer_len;
	const char *answer_type;
	const char *allow;                        /* for 405 */
	char served_name[65], served_version[24]; /* of the model, for the log after it is released */
	char label[64];

	void *http; /* the HTTP side's own state */
};

typedef struct request_pool request_pool;

/* keep: requests kept for reuse at most; budget_bytes: of all buffers with outside data at once. */
wn_code request_pool_open(request_pool **out, size_t keep, size_t budget_bytes, wn_error *err);
void request_pool_close(request_pool **p);  /* every request must be back */
request *request_pool_get(request_pool *p); /* NULL on no memory; outcome OK, everything else empty */
void request_pool_put(request_pool *p, request *r);
size_t request_pool_bytes(request_pool *p); /* held now */
/* Frees the requests that nobody has taken since the last call: what a burst needed is not kept for ever. Returns the bytes
 * freed, with all buffers. */
size_t request_pool_shrink(request_pool *p);

/* Records how the request ends, with one line for its sender; the first call wins. Returns r's outcome. */
reason request_fail(request *r, reason why, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* request_fail where there is no memory for what the request needs. */
reason request_no_memory(request *r);

/* 128 random bits in hex. */
void request_random_id(char out[REQUEST_ID_SIZE]);
/* [A-Za-z0-9._-]{1,64} */
bool request_id_is_valid(const char *s);

int64_t monotonic_ns(void);

#endif
