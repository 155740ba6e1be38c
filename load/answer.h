/* answer.h: what the body of an answer says. The bytes are a stranger's. */
#ifndef WINNOW_LOAD_ANSWER_H
#define WINNOW_LOAD_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

/* The member "label" of a JSON object; false when there is none, or it does not fit. */
bool answer_label(const char *body, size_t len, char *out, size_t size);
/* Which model answered, "NAME/VERSION": a JSON object's members "name" and "version" (a load command's answer), or those of its
 * member "model" (an audit's). False when they are not there, or do not fit. */
bool answer_model(const char *body, size_t len, char *out, size_t size);
/* One printable line for a report: "detail" or "error" of a JSON object (RFC 9457, Open Inference Protocol), else the
 * body's beginning with whatever is not printable ASCII replaced. */
void answer_reason(const char *body, size_t len, char *out, size_t size);

#endif
