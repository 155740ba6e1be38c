/* commands.h: the subcommands of winnow-prune. Each parses its own options (options.h), does its work, prints errors as one
 * line on stderr and returns the exit code: 0 done, 1 the work failed, 2 usage. argv[0] is the subcommand's name.
 *
 * They are weak so that a build without one of them (an optional dependency is missing) links; main.c lists what is there. */
#ifndef WINNOW_PRUNE_COMMANDS_H
#define WINNOW_PRUNE_COMMANDS_H

#define WINNOW_COMMAND(name) int cmd_##name(int argc, char **argv) __attribute__((weak))

WINNOW_COMMAND(inspect);
WINNOW_COMMAND(forward);
WINNOW_COMMAND(grad);
WINNOW_COMMAND(tokenize);
WINNOW_COMMAND(preprocess);
WINNOW_COMMAND(classify);
WINNOW_COMMAND(bench);
WINNOW_COMMAND(train);
WINNOW_COMMAND(compress);
WINNOW_COMMAND(quantize);
WINNOW_COMMAND(eval);
WINNOW_COMMAND(publish);
WINNOW_COMMAND(report);

#undef WINNOW_COMMAND
#endif
