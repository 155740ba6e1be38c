/* outcome.c: see outcome.h. */
#include "load/outcome.h"

#include <errno.h>
#include <stdio.h>

outcome_text outcome_name(outcome o)
{
	static const char *const NAMES[] = {
	    "connect_refused", "connect_failed",     "connection_reset",   "closed_without_answer", "answer_cut",
	    "bad_answer",      "timeout_waiting",    "timeout_connecting", "timeout_sending",       "timeout_answer",
	    "unfinished",      "out_of_descriptors", "out_of_ports",
	};
	_Static_assert(sizeof NAMES / sizeof *NAMES == OUTCOME_END - OUTCOME_CONNECT_REFUSED, "one name for each");
	outcome_text t;
	if (o >= OUTCOME_CONNECT_REFUSED && o < OUTCOME_END)
		snprintf(t.s, sizeof t.s, "%s", NAMES[o - OUTCOME_CONNECT_REFUSED]);
	else
		snprintf(t.s, sizeof t.s, "%u", (unsigned)o);
	return t;
}

outcome outcome_of_errno(int error, bool connecting)
{
	switch (error) {
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		return OUTCOME_OUT_OF_DESCRIPTORS;
	case EADDRNOTAVAIL:
	case EAGAIN: /* of connect: no local port is left in the range */
		return OUTCOME_OUT_OF_PORTS;
	case ECONNREFUSED:
		return OUTCOME_CONNECT_REFUSED;
	case ECONNRESET:
	case EPIPE:
	case ECONNABORTED:
		return OUTCOME_CONNECTION_RESET;
	case ETIMEDOUT:
		return connecting ? OUTCOME_TIMEOUT_CONNECTING : OUTCOME_CONNECTION_RESET;
	default:
		return connecting ? OUTCOME_CONNECT_FAILED : OUTCOME_CONNECTION_RESET;
	}
}
