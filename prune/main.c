/* main.c: winnow-prune, everything that happens offline, as subcommands. Picks the subcommand and passes on its exit code. */
#include <stdio.h>
#include <string.h>

#include "model/omp_policy.h"
#include "prune/commands.h"
#include "prune/options.h"

typedef struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} command;

/* What a command printed has to arrive: a full disk or a closed pipe behind standard output is a failure of the command. */
static int finish(const char *name, int rc)
{
	if ((fflush(stdout) || ferror(stdout)) && rc == EXIT_DONE) {
		fprintf(stderr, "winnow-prune %s: cannot write standard output\n", name);
		return EXIT_FAILED;
	}
	return rc;
}

static void usage(FILE *f, const command *commands, size_t n)
{
	fprintf(f, "winnow-prune: train, compress and inspect BLIP-2-class models on CPU\n\n"
	           "Usage: winnow-prune COMMAND [options]\n\nCommands:\n");
	for (size_t i = 0; i < n; i++)
		fprintf(f, "  %-12s %s\n", commands[i].name, commands[i].summary);
	fprintf(f, "\nwinnow-prune COMMAND --help explains its options, with examples.\n"
	           "Exit codes: 0 done, 1 the work failed, 2 usage.\n");
}

int main(int argc, char **argv)
{
	const command commands[] = {
		{"train", cmd_train, "train a teacher, or fine-tune an imported checkpoint"},
		{"compress", cmd_compress, "shrink a teacher to a size or a latency, by pruning and distillation"},
		{"eval", cmd_eval, "accuracy, F1, calibration and latency on a data set"},
		{"report", cmd_report, "a run as one HTML file: trade-offs, curves, classes, widths, energy"},
		{"quantize", cmd_quantize, "store and run a model in int8 or bf16"},
		{"publish", cmd_publish, "make a model directory the next version of a registry"},
		{"inspect", cmd_inspect, "parameters, FLOPs and bytes of a model directory"},
		{"forward", cmd_forward, "hidden states and logits for given inputs"},
		{"grad", cmd_grad, "loss and the gradient of every parameter"},
		{"tokenize", cmd_tokenize, "lines of text to token ids, and back"},
		{"preprocess", cmd_preprocess, "an image file to pixel_values"},
		{"classify", cmd_classify, "one image and text to label probabilities"},
		{"bench", cmd_bench, "time one request, against the machine's matmul peak"},
	};
	const size_t n = sizeof commands / sizeof *commands;
	if (argc < 2) {
		usage(stderr, commands, n);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		usage(stdout, commands, n);
		return EXIT_DONE;
	}
	omp_take_processors(); /* what a command's --threads 0 means */
	for (size_t i = 0; i < n; i++)
		if (!strcmp(argv[1], commands[i].name))
			return finish(commands[i].name, commands[i].run(argc - 1, argv + 1));
	fprintf(stderr, "winnow-prune: unknown command \"%.60s\" (try --help)\n", argv[1]);
	return EXIT_USAGE;
}
