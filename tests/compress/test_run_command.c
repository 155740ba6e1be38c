/* What a long command says when it is stopped: the line that continues it is one a shell takes as it is. */
#include "tests/prune/support.h"

#include "prune/run_command.h"

static const wn_error why = {.code = WN_CANCELLED, .message = "stopped at step 7"};

/* What it says into text. */
static void say(char *text, size_t size, const run_line *line, bool resumable)
{
	FILE *f = fmemopen(text, size, "w");
	assert_int_equal(run_interrupted(f, line, &why, resumable), EXIT_INTERRUPTED);
	assert_int_equal(fclose(f), 0);
}

static void the_line_has_every_setting(void **state)
{
	static const char *const sets[] = {"target.value=1.5", "run_dir=my runs/a", "name=it's", "stages=[blocks | steps 3]", "data.test="};
	const run_line line = {"compress", "configs/c.yaml", sets, 5};
	char text[1000];
	say(text, sizeof text, &line, true);
	assert_string_equal(text, "\nstopped at step 7; continue with: winnow-prune compress --config configs/c.yaml --set target.value=1.5 "
				  "--set 'run_dir=my runs/a' --set 'name=it'\\''s' --set 'stages=[blocks | steps 3]' --set data.test= --resume\n");
	const run_line plain = {"train", "a b.yaml", NULL, 0};
	say(text, sizeof text, &plain, true);
	assert_string_equal(text, "\nstopped at step 7; continue with: winnow-prune train --config 'a b.yaml' --resume\n");
}

/* The shell's own opinion. */
static void a_shell_takes_it_apart_as_it_was(void **state)
{
	static const char *const sets[] = {"a=$HOME `x` \"q\" \\ !", "b=*?;&<>(){}#~", "c='", "d=合规"};
	const run_line line = {"compress", "-", sets, 4};
	char path[300], command[600], text[1000], word[200];
	say(text, sizeof text, &line, true);
	scratch_open(path, sizeof path - 16);
	strcat(path, "/words.sh");
	FILE *f = fopen(path, "w");
	fprintf(f, "winnow_prune() { shift 3; for w in \"$@\"; do printf '%%s\\n' \"$w\"; done; }\nwinnow_prune%s",
		strstr(text, "winnow-prune") + strlen("winnow-prune"));
	fclose(f);
	snprintf(command, sizeof command, "sh %s", path);
	FILE *words = popen(command, "r");
	for (int i = 0; i < 4; i++) {
		assert_non_null(fgets(word, sizeof word, words));
		assert_string_equal(word, "--set\n");
		assert_non_null(fgets(word, sizeof word, words));
		word[strcspn(word, "\n")] = 0;
		assert_string_equal(word, sets[i]);
	}
	assert_non_null(fgets(word, sizeof word, words));
	assert_string_equal(word, "--resume\n");
	pclose(words);
	*strrchr(path, '/') = 0;
	remove_tree(path);
}

static void a_dry_run_has_nothing_to_continue(void **state)
{
	const run_line line = {"compress", "c.yaml", NULL, 0};
	char text[1000];
	say(text, sizeof text, &line, false);
	assert_string_equal(text, "\nstopped at step 7\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_line_has_every_setting),
		cmocka_unit_test(a_shell_takes_it_apart_as_it_was),
		cmocka_unit_test(a_dry_run_has_nothing_to_continue),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
