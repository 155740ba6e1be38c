/* answers.h: what is written back, as text: audits, problems, and the few model-management documents.
 *
 * Each function returns malloc'ed UTF-8 JSON (the caller frees) or NULL on no memory. Nothing from inside the server
 * (paths, pointers, errno) is put into an answer. */
#ifndef WINNOW_SERVER_ANSWERS_H
#define WINNOW_SERVER_ANSWERS_H

#include <jansson.h>

#include "server/placement.h"
#include "server/request.h"

#define TYPE_JSON    "application/json"
#define TYPE_PROBLEM "application/problem+json"
#define TYPE_METRICS "text/plain; version=0.0.4; charset=utf-8"

/* The audit answer of a request whose probs, verdict and times are set; r->model is there. */
char *answer_audit(const request *r);
/* RFC 9457, from r->outcome and r->detail. */
char *answer_problem(const request *r);
/* The Open Inference Protocol's error object, for /v2. */
char *answer_v2_error(const request *r);
/* GET /v2: server metadata. */
char *answer_server_metadata(void);
/* GET /v2/models/NAME[/versions/V]. */
char *answer_model_metadata(const served_model *m, const placement *p);
char *answer_ready(const char *name, const char *version);

/* Compact text of a document, which is consumed. */
char *answer_dump(json_t *document);

/* Milliseconds with three decimals. */
json_t *json_milliseconds(int64_t ns);

#endif
