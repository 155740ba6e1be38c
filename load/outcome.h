/* outcome.h: how a request ended: the status of its answer, or the name of what kept it from one.
 *
 * An outcome is a small number, so that millions fit in memory: 100 to 999 is an HTTP status, the names below follow.
 * Names are stable: they stand in the JSON report. */
#ifndef WINNOW_LOAD_OUTCOME_H
#define WINNOW_LOAD_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>

typedef uint16_t outcome;

enum {
	OUTCOME_NONE = 0,               /* not ended yet */
	OUTCOME_CONNECT_REFUSED = 1000, /* nobody listens */
	OUTCOME_CONNECT_FAILED,         /* unreachable, or anything else connect says */
	OUTCOME_CONNECTION_RESET,       /* RST while sending or before the answer was complete */
	OUTCOME_CLOSED_WITHOUT_ANSWER,  /* FIN before the first byte of an answer */
	OUTCOME_ANSWER_CUT,             /* FIN in the middle of an answer */
	OUTCOME_BAD_ANSWER,             /* not HTTP/1.x, or beyond a limit */
	OUTCOME_TIMEOUT_WAITING,        /* no connection became free in time: all were busy */
	OUTCOME_TIMEOUT_CONNECTING,
	OUTCOME_TIMEOUT_SENDING,
	OUTCOME_TIMEOUT_ANSWER,
	OUTCOME_UNFINISHED,         /* the run was stopped while it waited, later than the target already */
	OUTCOME_OUT_OF_DESCRIPTORS, /* the load generator's own limits, not the server's doing */
	OUTCOME_OUT_OF_PORTS,
	OUTCOME_END
};

/* 200 to 299: everything else is a failure. */
static inline bool outcome_is_ok(outcome o) { return o >= 200 && o < 300; }
static inline bool outcome_is_status(outcome o) { return o >= 100 && o < 1000; }
static inline bool outcome_is_own_limit(outcome o)
{
	return o == OUTCOME_OUT_OF_DESCRIPTORS || o == OUTCOME_OUT_OF_PORTS;
}

/* "429" or "timeout_answer". */
typedef struct outcome_text {
	char s[32];
} outcome_text;
outcome_text outcome_name(outcome o);

/* What an errno of connect, send or recv means. */
outcome outcome_of_errno(int error, bool connecting);

#endif
