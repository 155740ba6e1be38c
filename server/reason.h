/* reason.h: every way a request can end, once: the name in answers, logs and metrics, the HTTP status, the title. */
#ifndef WINNOW_SERVER_REASON_H
#define WINNOW_SERVER_REASON_H

#define REASONS(X)                                                                                                     \
	X(OK, 200, "ok", "OK")                                                                                         \
	X(BAD_REQUEST, 400, "bad_request", "The request is malformed")                                                 \
	X(BAD_JSON, 400, "bad_json", "The JSON body is malformed")                                                     \
	X(BAD_MULTIPART, 400, "bad_multipart", "The multipart body is malformed")                                      \
	X(MISSING_FIELD, 400, "missing_field", "A required field is missing")                                          \
	X(DUPLICATE_FIELD, 400, "duplicate_field", "A field is given twice")                                           \
	X(UNKNOWN_FIELD, 400, "unknown_field", "A field is not known")                                                 \
	X(BAD_FIELD, 400, "bad_field", "A field has a wrong value")                                                    \
	X(BAD_BASE64, 400, "bad_base64", "The image is not valid base64")                                              \
	X(BAD_DEADLINE, 400, "bad_deadline", "X-Deadline-Ms is out of range")                                          \
	X(UNAUTHORIZED, 401, "unauthorized", "A valid key is required")                                                \
	X(FORBIDDEN, 403, "forbidden", "This key may not do that")                                                     \
	X(NOT_FOUND, 404, "not_found", "There is nothing at this path")                                                \
	X(UNKNOWN_MODEL, 404, "unknown_model", "The model is not served here")                                         \
	X(LOAD_FAILED, 409, "load_failed", "The model cannot be loaded or unloaded")                                   \
	X(METHOD_NOT_ALLOWED, 405, "method_not_allowed", "The method is not allowed here")                             \
	X(RECEIVE_TIMEOUT, 408, "receive_timeout", "The request took too long to arrive")                              \
	X(LENGTH_REQUIRED, 411, "length_required", "The request has no body length")                                   \
	X(BODY_TOO_LARGE, 413, "body_too_large", "The request body is too large")                                      \
	X(IMAGE_TOO_LARGE, 413, "image_too_large", "The image is too large")                                           \
	X(TEXT_TOO_LARGE, 413, "text_too_large", "A text field is too large")                                          \
	X(UNSUPPORTED_MEDIA_TYPE, 415, "unsupported_media_type", "The Content-Type is not supported")                  \
	X(UNSUPPORTED_IMAGE, 415, "unsupported_image", "The image format is not supported")                            \
	X(UNDECODABLE_IMAGE, 422, "undecodable_image", "The image cannot be decoded")                                  \
	X(INVALID_UTF8, 422, "invalid_utf8", "A text field is not valid UTF-8")                                        \
	X(QUEUE_FULL, 429, "queue_full", "The queue is full")                                                          \
	X(RATE_LIMITED, 429, "rate_limited", "Too many requests from this client")                                     \
	X(BODY_BUDGET, 429, "body_budget", "Too many large requests are being received")                               \
	X(CLIENT_CLOSED, 499, "client_closed", "The client closed the connection")                                     \
	X(INTERNAL, 500, "internal", "The server failed")                                                              \
	X(NO_MODEL, 503, "no_model", "No model is loaded")                                                             \
	X(OUT_OF_MEMORY, 503, "out_of_memory", "The server is out of memory")                                          \
	X(DRAINING, 503, "draining", "The server is shutting down")                                                    \
	X(DEADLINE_EXCEEDED, 504, "deadline_exceeded", "The deadline has passed")                                      \
	X(DEADLINE_UNREACHABLE, 504, "deadline_unreachable", "The deadline cannot be met")

#define REASON_ENUM(id, status, name, title) REASON_##id,
typedef enum reason { REASONS(REASON_ENUM) REASON_COUNT } reason;
#undef REASON_ENUM

int reason_status(reason r);
const char *reason_name(reason r);
const char *reason_title(reason r);

#endif
