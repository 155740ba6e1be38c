/* What a long command is told, and what it says when it is stopped: the line that continues it is one a shell takes as it is. */
#include "tests/prune/support.h"

#include "prune/run_command.h"

typedef struct settings {
	char *dir;
	int n;
} settings;
static const config_key KEYS[] = {CONFIG_STRING(settings, dir, "dir", NULL, "where"), CONFIG_INT(settings, n, "n", "5", 1, 9, "how many")};
static const config_schema SCHEMA = CONFIG_SCHEMA(settings, KEYS);
static const run_command COMMAND = {.info = {.name = "compress", .summary = "of a test", .examples = ""}, .dry_help = "nothing",
				    .schema = &SCHEMA};

static const wn_error why = {.code = WN_CANCELLED, .message = "stopped at step 7"};

/* What it says into text. */
static void say(char *text, size_t size, const run_arguments *a)
{
	FILE *f = fmemopen(text, size, "w");
	assert_int_equal(run_exit_status(f, &COMMAND, a, WN_CANCELLED, &why), EXIT_INTERRUPTED);
	assert_int_equal(fclose(f), 0);
}

static void the_line_has_every_setting(void **state)
{
	const run_arguments a = {.config_path = "configs/c.yaml",
				 .sets = {"target.value=1.5", "run_dir=my runs/a", "name=it's", "stages=[blocks | steps 3]", "data.test="},
				 .num_sets = 5};
	char text[1000];
	say(text, sizeof text, &a);
	assert_string_equal(text, "\nstopped at step 7; continue with: winnow-prune compress --config configs/c.yaml --set target.value=1.5 "
				  "--set 'run_dir=my runs/a' --set 'name=it'\\''s' --set 'stages=[blocks | steps 3]' --set data.test= --resume\n");
	const run_arguments plain = {.config_path = "a b.yaml"};
	say(text, sizeof text, &plain);
	assert_string_equal(text, "\nstopped at step 7; continue with: winnow-prune compress --config 'a b.yaml' --resume\n");
}

/* The shell's own opinion. */
static void a_shell_takes_it_apart_as_it_was(void **state)
{
	const run_arguments a = {.config_path = "-", .sets = {"a=$HOME `x` \"q\" \\ !", "b=*?;&<>(){}#~", "c='", "d=合规"}, .num_sets = 4};
	char path[300], command[600], text[1000], word[200];
	say(text, sizeof text, &a);
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
		assert_string_equal(word, a.sets[i]);
	}
	assert_non_null(fgets(word, sizeof word, words));
	assert_string_equal(word, "--resume\n");
	pclose(words);
	*strrchr(path, '/') = 0;
	remove_tree(path);
}

static void a_dry_run_has_nothing_to_continue(void **state)
{
	const run_arguments a = {.config_path = "c.yaml", .dry = true};
	char text[1000];
	say(text, sizeof text, &a);
	assert_string_equal(text, "\nstopped at step 7\n");
}

static void an_end_has_its_status(void **state)
{
	const run_arguments a = {.config_path = "c.yaml"};
	const wn_error failed = {.code = WN_IO, .message = "disk full (said by a test)"};
	assert_int_equal(run_exit_status(stderr, &COMMAND, &a, WN_OK, &(wn_error){0}), EXIT_DONE);
	assert_int_equal(run_exit_status(stderr, &COMMAND, &a, WN_IO, &failed), EXIT_FAILED);
}

/* argv as main gives it, from words between blanks. */
static int parse(run_arguments *a, const char *line)
{
	static char copy[8000];
	static char *argv[1000];
	int argc = 1;
	argv[0] = "compress";
	snprintf(copy, sizeof copy, "%s", line);
	for (char *save, *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	argv[argc] = NULL;
	return run_arguments_parse(a, &COMMAND, argc, argv);
}

static void arguments_are_taken_or_refused(void **state)
{
	run_arguments a;
	assert_int_equal(parse(&a, "--set n=1 --config c.yaml --set=n=2 --resume --max-steps 7 --set dir="), RUN_GOES_ON);
	assert_string_equal(a.config_path, "c.yaml");
	assert_int_equal(a.num_sets, 3);
	assert_string_equal(a.sets[0], "n=1");
	assert_string_equal(a.sets[1], "n=2");
	assert_string_equal(a.sets[2], "dir=");
	assert_true(a.resume && !a.dry && a.max_steps == 7);
	assert_int_equal(parse(&a, "--dry-run --config=c.yaml"), RUN_GOES_ON);
	assert_true(a.dry && !a.resume && a.num_sets == 0 && a.max_steps == 0);
	assert_int_equal(parse(&a, "--help"), EXIT_DONE);
	assert_int_equal(parse(&a, "--print-config"), EXIT_DONE); /* needs no configuration */
	assert_int_equal(parse(&a, ""), EXIT_USAGE);
	assert_int_equal(parse(&a, "--config c.yaml --set"), EXIT_USAGE);
	assert_int_equal(parse(&a, "--config c.yaml --max-steps -1"), EXIT_USAGE);
	assert_int_equal(parse(&a, "--config c.yaml --bogus"), EXIT_USAGE);
	char many[8000] = "--config c.yaml";
	for (int i = 0; i < MAX_SETS; i++)
		strcat(many, " --set n=1");
	assert_int_equal(parse(&a, many), RUN_GOES_ON);
	assert_int_equal(parse(&a, strcat(many, " --set n=1")), EXIT_USAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_line_has_every_setting),
		cmocka_unit_test(a_shell_takes_it_apart_as_it_was),
		cmocka_unit_test(a_dry_run_has_nothing_to_continue),
		cmocka_unit_test(an_end_has_its_status),
		cmocka_unit_test(arguments_are_taken_or_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
