/* assert_ok.h: a call that must succeed, with its own error, `err` in the call. cmocka.h comes first. */
#ifndef WINNOW_TESTS_ASSERT_OK_H
#define WINNOW_TESTS_ASSERT_OK_H

#include "base/error.h"

#define assert_ok(call)                                                                                                    \
	do {                                                                                                               \
		wn_error e_ = {0};                                                                                         \
		wn_error *err = &e_;                                                                                       \
		if ((call) != WN_OK)                                                                                       \
			fail_msg("%s: %s", #call, e_.message);                                                             \
	} while (0)

#endif
