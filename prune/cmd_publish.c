/* cmd_publish.c: `winnow-prune publish`: checks a model directory and makes it the next version of a registry (publish.h). */
#include <stdio.h>

#include "prune/commands.h"
#include "prune/options.h"
#include "prune/publish.h"
#include "prune/run_command.h"

static const char *show_count(char buf[32], size_t n)
{
	if (n < 1000000)
		snprintf(buf, 32, "%zu", n);
	else
		snprintf(buf, 32, n < 1000000000 ? "%.2f M" : "%.2f B", (double)n * (n < 1000000000 ? 1e-6 : 1e-9));
	return buf;
}

static void print_result(const publication *p, const char *verb)
{
	char count[32];
	printf("%s %s version %d (%s parameters, %.1f MB) to %s/%s/%d\n", verb, p->options.name, p->version,
	       show_count(count, p->parameters), 1e-6 * (double)p->bytes, p->registry, p->options.name, p->version);
}

static void print_notes(const publication *p)
{
	if (p->renamed)
		fprintf(stderr, "name: winnow.json says %s; the published copy is named %s\n",
		        classifier_checkpoint(p->classifier)->manifest.name, p->options.name);
	if (p->self_test)
		fprintf(stderr, "self_test: the model has none; the published copy gets one from its own answers\n");
	if (p->leftovers_removed)
		fprintf(stderr, "leftovers of interrupted publishes: removed %d\n", p->leftovers_removed);
}

int cmd_publish(int argc, char **argv)
{
	publish_options o = {0};
	bool dry = false;
	const option_spec options[] = {
		{"model", OPTION_STRING, &o.model_dir, "DIR", "model directory with winnow.json", .required = true},
		{"registry", OPTION_STRING, &o.registry, "DIR", "the registry's root, which exists", .required = true},
		{"name", OPTION_STRING, &o.name, "NAME", "the model's name there; may differ from winnow.json's", .required = true},
		{"version", OPTION_INT, &o.version, "N", "this version number, refused when it exists; 0: the next", .min = 0,
		 .max = PUBLISH_MAX_VERSION},
		{"dry-run", OPTION_FLAG, &dry, NULL, "check everything and print what would happen; write nothing"},
		{0}};
	const command_info info = {"publish", "check a model directory and make it the next version of a registry",
	                           "winnow-prune publish --model runs/teacher/export --registry registry --name ad-audit\n"
	                           "winnow-prune publish --model runs/teacher/export --registry registry --name ad-audit --dry-run\n"
	                           "winnow-prune publish --model registry/ad-audit/2 --registry registry --name ad-audit\n",
	                           options};
	int parsed = options_parse(&info, argc, argv);
	if (parsed != OPTIONS_OK)
		return parsed == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	if (!manifest_name_is_valid(o.name)) {
		fprintf(stderr, "winnow-prune publish: --name: found \"%.60s\", expected 1 to 64 of A-Z a-z 0-9 . _ -, not starting "
		        "with a dot\n", o.name);
		return EXIT_USAGE;
	}
	publication p;
	wn_error err = {0};
	if (publish_open(&p, &o, &err))
		return command_fail(&info, &err);
	wn_code rc = WN_OK;
	if (!dry) {
		/* Only now: the copying removes its hidden directory; while a model loads, Ctrl-C ends the program as ever. */
		p.options.stop = catch_stop_signals();
		rc = publish_commit(&p, &err);
	}
	if (rc == WN_OK) {
		print_notes(&p);
		print_result(&p, dry ? "would publish" : "published");
	}
	publish_close(&p);
	if (rc)
		command_fail(&info, &err);
	return rc == WN_CANCELLED ? EXIT_INTERRUPTED : rc ? EXIT_FAILED : EXIT_DONE;
}
