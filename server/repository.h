/* repository.h: the Open Inference Protocol's model repository extension, between HTTP's bytes and the manager.
 *
 *   POST /v2/repository/index                 {"ready": true}, or nothing
 *   POST /v2/repository/models/NAME/load      {"parameters": {"version": "3"}}, or nothing
 *   POST /v2/repository/models/NAME/unload    the same
 *
 * Parsing fills the request's outcome when it fails, and what the access log tells of a command. Unknown members are refused: a misspelt parameter must not load
 * something else. Answers are malloc'ed JSON, NULL on no memory. */
#ifndef WINNOW_SERVER_REPOSITORY_H
#define WINNOW_SERVER_REPOSITORY_H

#include "server/manager.h"
#include "server/request.h"

#define REPOSITORY_MAX_BODY 65536 /* bytes */

reason repository_parse_index(request *r, bool *ready_only);
/* Everything of *c but kind, name, done and cls, which are set. load takes "percent" (1 to 100) and "mode" ("canary", "shadow") too: a
 * trial instead of a takeover. */
reason repository_parse_command(request *r, model_command *c);

char *repository_answer_index(manager *m, bool ready_only);
/* Of a command that ended with REASON_OK. */
char *repository_answer_command(const model_command *c);

#endif
