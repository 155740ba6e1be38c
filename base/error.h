/* error.h: the one way a library or server function fails.
 *
 * A fallible function returns WN_OK or a code below and, when given a non-NULL wn_error, leaves one line in it that
 * names the file, key or tensor, what was found and what was expected. The first error is kept: a later wn_fail on the
 * same wn_error changes nothing, so cleanup paths may fail too without hiding the cause.
 */
#ifndef WINNOW_BASE_ERROR_H
#define WINNOW_BASE_ERROR_H

typedef enum wn_code {
	WN_OK = 0,
	WN_INVALID,     /* the content is malformed or contradicts itself */
	WN_UNSUPPORTED, /* well formed, but a variant winnow does not run */
	WN_TOO_LARGE,   /* beyond a stated limit; nothing of that size was allocated */
	WN_NOT_FOUND,   /* a file, tensor or key is absent */
	WN_IO,          /* the operating system refused; the message carries strerror */
	WN_NOMEM,       /* allocation failed */
	WN_CANCELLED,   /* the caller's deadline or cancel flag ended the work */
	WN_INTERNAL     /* a bug or a failed primitive */
} wn_code;

typedef struct wn_error {
	wn_code code;
	char message[480]; /* one line, no trailing newline, always terminated */
} wn_error;

/* Starts empty: `wn_error err = {0};`. Records the first failure and returns code; err may be NULL. */
wn_code wn_fail(wn_error *err, wn_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the recorded message, to name the file as the error travels up. Returns err's code. */
wn_code wn_fail_prefix(wn_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
