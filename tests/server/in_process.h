/* in_process.h: the server without HTTP, in the test's own process: a registry, the model manager, the audit service, all as
 * server.c puts them together, and a function that asks and waits. Makes no assertions: the fuzz target uses it as well. */
#ifndef WINNOW_TESTS_IN_PROCESS_H
#define WINNOW_TESTS_IN_PROCESS_H

#include "server/audit.h"
#include "server/manager.h"

typedef struct in_process in_process;

/* settings: KEY=VALUE each, ended by NULL, over the defaults (one thread, one inference instance, a deadline that never passes). */
wn_code in_process_open(in_process **out, const char *registry_root, const char *const *settings, wn_error *err);
void in_process_close(in_process **p);

/* The manager's thread, for commands. */
wn_code in_process_start_manager(in_process *p, wn_error *err);
/* A command with kind, name and parameters: submits it and waits for its end. done and cls are this function's. */
void in_process_submit(in_process *p, model_command *c);
/* Load (or unload): the command with outcome, detail and what answers now. */
model_command in_process_command(in_process *p, command_kind kind, const char *name, int version);

/* One audit with this Content-Type and body, from admission to its end; give it back. NULL: no memory for a request. */
request *in_process_ask(in_process *p, const char *content_type, const void *body, size_t len);
/* The same with a deadline of its own. */
request *in_process_ask_within(in_process *p, const char *content_type, const void *body, size_t len, int64_t budget_ns);
void in_process_put(in_process *p, request *r);

audit_service *in_process_audit(in_process *p);
registry *in_process_registry(in_process *p);
manager *in_process_manager(in_process *p);
request_pool *in_process_pool(in_process *p);
const server_config *in_process_config(const in_process *p);

#endif
