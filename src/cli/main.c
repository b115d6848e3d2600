/* cli/main.c - `winnow COMMAND ...`: finds the command and leaves the rest to it. */
#include "cli/cli.h"

#include "winnow.h"

#include <jansson.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>

static const struct {
    const wn_help_page *page;
    int (*run)(int argc, char **argv);
} commands[] = {
    { &wn_cli_run_page, wn_cli_run },
    { &wn_cli_chat_page, wn_cli_chat },
    { &wn_cli_bench_page, wn_cli_bench },
    { &wn_cli_eval_page, wn_cli_eval },
    { &wn_cli_profile_page, wn_cli_profile },
    { &wn_cli_calibrate_page, wn_cli_calibrate },
    { &wn_cli_recipes_page, wn_cli_recipes },
    { &wn_cli_replay_page, wn_cli_replay },
    { &wn_cli_inspect_page, wn_cli_inspect },
    { &wn_cli_models_page, wn_cli_models },
    { &wn_cli_tokenize_page, wn_cli_tokenize },
};
enum { N_COMMANDS = (int)(sizeof commands / sizeof *commands) };

static const char *command_row(int i, const char **about)
{
    *about = i < N_COMMANDS ? commands[i].page->summary : NULL;
    return i < N_COMMANDS ? commands[i].page->command : NULL;
}

static const wn_help_page page = {
    .summary = "long-context language models in the memory you have",
    .usage = "COMMAND [options]",
    .about =
        "winnow runs long-context language models (GGUF) in the memory you have.\n"
        "winnow COMMAND --help explains a command; winnow --version says which winnow this is.\n"
        "Exit status: 0 fine, 1 the work failed, 2 the command line is wrong.",
    .rows_title = "Commands",
    .row = command_row,
};

/* What a report of a fault should say: the build, what it runs with here, and on what. */
static void print_version(void)
{
    char pcre2[64] = "";
    wn_kernels_info k;
    wn_kernels_get_info(&k);
    pcre2_config_8(PCRE2_CONFIG_VERSION, pcre2);
    pcre2[strcspn(pcre2, " ")] = '\0';
    puts("winnow " WN_VERSION " (" WN_COMMIT ")");
    printf("built      by %s %s, %s\n", WN_COMPILER, __VERSION__, WN_BUILD_FLAGS);
    printf("kernels    %s here, numerics %s\n", k.name, k.numerics);
    printf("libraries  PCRE2 %s, utf8proc %s, jansson %s, xxHash %u.%u.%u\n", pcre2,
           utf8proc_version(), jansson_version_str(), XXH_versionNumber() / 10000,
           XXH_versionNumber() / 100 % 100, XXH_versionNumber() % 100);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name) {
        fputs("usage: winnow COMMAND [options]; winnow --help lists the commands\n", stderr);
        return WN_EXIT_USAGE;
    }
    if (wn_args_is_help(name) || !strcmp(name, "help")) {
        wn_help(&page, NULL, 0);
        return WN_EXIT_OK;
    }
    if (!strcmp(name, "--version")) {
        print_version();
        return WN_EXIT_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(name, commands[i].page->command)) return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "winnow: there is no command %.40s; winnow --help lists them\n", name);
    return WN_EXIT_USAGE;
}
