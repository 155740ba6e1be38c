/* page_check.h: is a page what html.h promises? Given to check_report.py (CHECK_REPORT): well-formed XML, no overlapping text, nothing
 * drawn outside of its plot. */
#ifndef WINNOW_TESTS_PAGE_CHECK_H
#define WINNOW_TESTS_PAGE_CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* False where there is no python3. */
static inline bool page_checks(const char *path)
{
	fflush(NULL);
	const pid_t child = fork();
	if (child == 0) {
		dup2(2, 1);
		execlp("python3", "python3", CHECK_REPORT, path, (char *)NULL);
		_exit(127);
	}
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return false;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail_msg("%s was refused by check_report.py", path);
	return true;
}

/* No-break spaces become spaces: expectations below shall be readable. */
static inline char *plain_spaces(char *text)
{
	char *to = text;
	for (const char *from = text; *from;) {
		const bool special = !strncmp(from, "\u00A0", 2);
		*to++ = special ? ' ' : *from;
		from += special ? 2 : 1;
	}
	*to = 0;
	return text;
}

#endif
