/* program.h: running winnow-prune from a test and looking at what it said. */
#ifndef WINNOW_TESTS_ENGINE_PROGRAM_H
#define WINNOW_TESTS_ENGINE_PROGRAM_H

typedef struct outcome {
	int exit_code; /* -1: killed by a signal */
	char out[16384];
	char err[4096];
} outcome;

/* argv[0] of the test program's own arguments names winnow-prune; call this first. */
void program_is(const char *path);

/* Runs it with the NULL-terminated arguments; input (may be NULL) is its standard input. Output beyond the buffers is cut. */
void run_program(outcome *o, const char *input, const char *const *arguments);

#define RUN(o, ...) run_program((o), NULL, (const char *const[]){__VA_ARGS__, NULL})

/* Exit code as expected; for 1 and 2 exactly one line on stderr that contains every given word. */
void assert_refused(const outcome *o, int exit_code, const char *word);

#endif
