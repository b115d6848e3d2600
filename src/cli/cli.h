/* cli/cli.h - the subcommands of `winnow`, one file each. An entry gets its own arguments
 * (argv[0] is its name) and returns the exit status: WN_EXIT_OK, WN_EXIT_FAILED when the
 * work failed, WN_EXIT_USAGE when the command line is wrong. Only this directory prints
 * and decides about exiting.
 */
#ifndef WN_CLI_H
#define WN_CLI_H

enum { WN_EXIT_OK = 0, WN_EXIT_FAILED = 1, WN_EXIT_USAGE = 2 };

int wn_cli_run(int argc, char **argv);
int wn_cli_bench(int argc, char **argv);
int wn_cli_eval(int argc, char **argv);
int wn_cli_recipes(int argc, char **argv);
int wn_cli_replay(int argc, char **argv);
int wn_cli_inspect(int argc, char **argv);
int wn_cli_models(int argc, char **argv);
int wn_cli_tokenize(int argc, char **argv);

#endif
