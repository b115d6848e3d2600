/* cli/cli.h - the subcommands of `winnow`, one file each. An entry gets its own arguments
 * (argv[0] is its name) and returns the exit status: WN_EXIT_OK, WN_EXIT_FAILED when the
 * work failed, WN_EXIT_USAGE when the command line is wrong. Only this directory prints
 * and decides about exiting. A command's page says what it is (help.h); main.c lists them.
 */
#ifndef WN_CLI_H
#define WN_CLI_H

#include "cli/help.h"

enum { WN_EXIT_OK = 0, WN_EXIT_FAILED = 1, WN_EXIT_USAGE = 2 };

int wn_cli_run(int argc, char **argv);
int wn_cli_chat(int argc, char **argv);
int wn_cli_bench(int argc, char **argv);
int wn_cli_eval(int argc, char **argv);
int wn_cli_profile(int argc, char **argv);
int wn_cli_calibrate(int argc, char **argv);
int wn_cli_recipes(int argc, char **argv);
int wn_cli_replay(int argc, char **argv);
int wn_cli_inspect(int argc, char **argv);
int wn_cli_models(int argc, char **argv);
int wn_cli_tokenize(int argc, char **argv);

extern const wn_help_page wn_cli_run_page, wn_cli_chat_page, wn_cli_bench_page, wn_cli_eval_page,
    wn_cli_profile_page, wn_cli_calibrate_page, wn_cli_recipes_page, wn_cli_replay_page,
    wn_cli_inspect_page, wn_cli_models_page, wn_cli_tokenize_page;

#endif
