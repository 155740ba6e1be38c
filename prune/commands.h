/* commands.h: the subcommands of winnow-prune. Each parses its own options (options.h), does its work, prints errors as one
 * line on stderr and returns the exit code: 0 done, 1 the work failed, 2 usage. argv[0] is the subcommand's name.
 */
#ifndef WINNOW_PRUNE_COMMANDS_H
#define WINNOW_PRUNE_COMMANDS_H

int cmd_bench(int argc, char **argv);
int cmd_classify(int argc, char **argv);
int cmd_compress(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_forward(int argc, char **argv);
int cmd_grad(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_preprocess(int argc, char **argv);
int cmd_publish(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_train(int argc, char **argv);

#endif
