/* cli/main.c - `winnow COMMAND ...`: finds the command and leaves the rest to it. */
#include "cli/cli.h"

#include "winnow.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    { "run", wn_cli_run, "read a prompt, continue it" },
    { "bench", wn_cli_bench, "how fast, beside what the machine can do" },
    { "eval", wn_cli_eval, "what a cache policy costs, measured on your model" },
    { "recipes", wn_cli_recipes, "what a cache policy can be made of" },
    { "replay", wn_cli_replay, "take recorded cache decisions again, without a model" },
    { "inspect", wn_cli_inspect, "what is in a model file, and what its cache costs" },
    { "models", wn_cli_models, "the models on this machine that -m NAME can mean" },
    { "tokenize", wn_cli_tokenize, "text to token ids, and back" },
};
enum { N_COMMANDS = (int)(sizeof commands / sizeof *commands) };

static void print_help(FILE *f)
{
    fputs("winnow runs long-context language models in the memory you have.\n\n"
          "usage: winnow COMMAND [options]\n\n", f);
    for (int i = 0; i < N_COMMANDS; i++) fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].what);
    fputs("\nwinnow COMMAND --help explains a command; winnow --version says which winnow this is.\n"
          "Exit status: 0 fine, 1 the work failed, 2 the command line is wrong.\n", f);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name) {
        print_help(stderr);
        return WN_EXIT_USAGE;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        print_help(stdout);
        return WN_EXIT_OK;
    }
    if (!strcmp(name, "--version")) {
        puts("winnow " WN_VERSION);
        return WN_EXIT_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(name, commands[i].name)) return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "winnow: there is no command %.40s; winnow --help lists them\n", name);
    return WN_EXIT_USAGE;
}
