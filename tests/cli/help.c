/* One source for --help, man pages and completion: every option is in all three, pages are
 * roff that a formatter takes, shells complete what the program lists, and what make
 * install leaves behind is whole. Shells and formatters that are not there are passed over. */
#include "tests/support/shell.h"
#include "tests/unit/check.h"

#include <stdbool.h>

static char *commands[32];
static int n_commands;

static bool there(const char *program) { return !sh("command -v %s >/dev/null", program); }

static int list_commands(void **state)
{
    (void)state;
    assert_int_equal(sh("./winnow --help=options"), 0);
    for (char *s = strtok(strdup(out), "\n"); s; s = strtok(NULL, "\n")) {
        s[strcspn(s, "\t")] = '\0';
        commands[n_commands++] = s;
    }
    assert_true(n_commands >= 8);
    return 0;
}

static void every_option_is_everywhere(void **state)
{
    (void)state;
    for (int c = 0; c < n_commands; c++) {
        char *text, *man, want[80];
        assert_int_equal(sh("./winnow %s --help", commands[c]), 0);
        text = strdup(out);
        assert_int_equal(sh("./winnow %s --help=man", commands[c]), 0);
        man = strdup(out);
        assert_int_equal(sh("./winnow %s --help=options", commands[c]), 0);
        if (!strstr(text, "usage: winnow ")) fail_msg("%s has no usage", commands[c]);
        for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n")) {
            line[strcspn(line, "\t")] = '\0';
            if (!strstr(text, line)) fail_msg("%s --help does not say %s", commands[c], line);
            size_t n = 0;
            for (const char *s = line; *s && n < sizeof want - 3; s++) {
                if (*s == '-') want[n++] = '\\';
                want[n++] = *s;
            }
            want[n] = '\0';
            if (!strstr(man, want)) fail_msg("winnow-%s(1) does not say %s", commands[c], line);
        }
        free(text);
        free(man);
    }
}

static void pages_are_roff(void **state)
{
    (void)state;
    if (!there("groff")) skip();
    for (int c = -1; c < n_commands; c++) {
        const char *name = c < 0 ? "" : commands[c];
        assert_int_equal(sh("./winnow %s --help=man | groff -man -Tutf8 -ww 2>&1 >/dev/null", name),
                         0);
        assert_string_equal(out, "");
        assert_int_equal(sh("./winnow %s --help=man | groff -man -Tascii -P-cbou", name), 0);
        says("SYNOPSIS");
        says("EXIT STATUS");
    }
}

static void bash_completes(void **state)
{
    (void)state;
    static const struct { const char *words, *cur, *says; } cases[] = {
        { "winnow", "inspe", "inspect" },
        { "winnow run", "--cache-type", "--cache-type-k" },
        { "winnow run --kv", "snap", "snapkv" },
        { "winnow eval --kv", "h2", "h2o" },
        { "winnow recipes", "pyr", "pyramidkv" },
        { "winnow run -m", "models/winnow-d", "models/winnow-demo.gguf" },
    };
    if (!there("bash")) skip();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(
            sh("PATH=$PWD:$PATH bash -c '. data/completion/winnow.bash; COMP_WORDS=(%s \"%s\"); "
               "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _winnow; echo ${COMPREPLY[@]}'",
               cases[i].words, cases[i].cur),
            0);
        says(cases[i].says);
    }
}

static void fish_and_zsh_read_theirs(void **state)
{
    (void)state;
    if (there("fish")) {
        assert_int_equal(
            sh("PATH=$PWD:$PATH HOME=/tmp fish -c 'source data/completion/winnow.fish; complete -C "
               "\"winnow inspe\"; "
               "complete -C \"winnow run --cache-type\"; complete -C \"winnow run --kv snap\"'"),
            0);
        says("inspect");
        says("--cache-type-k");
        says("snapkv");
    }
    if (there("zsh")) assert_int_equal(sh("zsh -n data/completion/winnow.zsh"), 0);
}

static void what_is_installed_is_whole(void **state)
{
    (void)state;
    static const char *const files[] = { "bin/winnow",
                                         "lib/libwinnow.a",
                                         "lib/pkgconfig/winnow.pc",
                                         "include/winnow.h",
                                         "include/winnow_policy.h",
                                         "share/man/man1/winnow.1",
                                         "share/man/man1/winnow-run.1",
                                         "share/bash-completion/completions/winnow",
                                         "share/zsh/site-functions/_winnow",
                                         "share/fish/vendor_completions.d/winnow.fish" };
    char dir[] = "/tmp/winnow-install-XXXXXX";
    assert_non_null(mkdtemp(dir));
    assert_int_equal(sh_both("make -s install DESTDIR=%s PREFIX=/usr", dir), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (sh("test -s %s/usr/%s", dir, files[i])) fail_msg("%s was not installed", files[i]);
    assert_int_equal(sh("PKG_CONFIG_SYSROOT_DIR=%s PKG_CONFIG_PATH=%s/usr/lib/pkgconfig pkg-config "
                        "--cflags --libs winnow",
                        dir, dir),
                     0);
    says("-lwinnow");
    assert_int_equal(sh("rm -r %s", dir), 0);
}

static void the_version_says_what_it_runs_with(void **state)
{
    (void)state;
    assert_int_equal(sh("./winnow --version"), 0);
    static const char *const words[] = { "winnow 0.", "built", "kernels",
                                         "numerics",  "PCRE2", "jansson" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) says(words[i]);
    assert_int_equal(sh("WN_CPU=scalar ./winnow --version"), 0);
    says("kernels    scalar");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_option_is_everywhere),
        cmocka_unit_test(pages_are_roff),
        cmocka_unit_test(bash_completes),
        cmocka_unit_test(fish_and_zsh_read_theirs),
        cmocka_unit_test(what_is_installed_is_whole),
        cmocka_unit_test(the_version_says_what_it_runs_with),
    };
    return cmocka_run_group_tests(tests, list_commands, NULL);
}
