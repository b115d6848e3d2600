/* Conversations on the command line: run --chat, and winnow chat through a pipe, as scripts and
 * these tests drive it: turns, commands, sessions, what is refused. */
#include "tests/unit/check.h"

#include <jansson.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODEL "models/winnow-demo.gguf"
static char dir[] = "/tmp/winnow-chat-XXXXXX";
static char out[1 << 16];

static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int sh(const char *fmt, ...)
{
    char cmd[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    FILE *p = popen(cmd, "r");
    assert_non_null(p);
    out[fread(out, 1, sizeof out - 1, p)] = '\0';
    int st = pclose(p);
    return WIFEXITED(st) ? WEXITSTATUS(st) : -1;
}

static void has(const char *what)
{
    if (!strstr(out, what)) fail_msg("no \"%s\" in: %s", what, out);
}

/* --chat feeds what the template says, token by token: the same answer as the text spelled out. */
static void run_takes_a_users_message(void **state)
{
    char chat[sizeof out];
    (void)state;
    assert_int_equal(
        sh("./winnow run -m " MODEL
           " --chat --system 'You are a helpful assistant.' -n 12 --temp 0 -q "
           "-p 'Mira put the red lantern in the cellar.\n\nWhere is the red lantern?'"),
        0);
    snprintf(chat, sizeof chat, "%s", out);
    assert_int_equal(sh("./winnow run -m " MODEL
                        " --parse-special -n 12 --temp 0 -q -p '<|im_start|>system\nYou are a "
                        "helpful assistant.<|im_end|>\n"
                        "<|im_start|>user\nMira put the red lantern in the cellar.\n\nWhere is the "
                        "red lantern?<|im_end|>\n<|im_start|>assistant\n'"),
                     0);
    assert_string_equal(out, chat);
    has("The red lantern is in the cellar.");
    assert_int_equal(sh("echo '{%% if' > %s/t; ./winnow run -m " MODEL
                        " --chat --template %s/t -p x 2>&1",
                        dir, dir),
                     1);
    has("line 1, column");
    assert_int_equal(sh("./winnow run -m " MODEL " --chat --template /nowhere/t -p x 2>&1"), 1);
    has("/nowhere/t");
    assert_int_equal(sh("./winnow run -m " MODEL " --system x -p x 2>&1"), 2);
    has("--chat");
    assert_int_equal(sh("./winnow run -m " MODEL " --chat --parse-special -p x 2>&1"), 2);
}

#define ASK "Mira put the red lantern in the cellar.\\\\\n\\\\\nWhere is the red lantern?\n"
#define CHAT "./winnow chat -m " MODEL " --system 'You are a helpful assistant.' --temp 0 -n 20 -q"

static void lines_are_turns_and_the_cache_is_used_again(void **state)
{
    (void)state;
    assert_int_equal(sh("printf '" ASK "/stats\n\"\"\"\nFelix found the silver key.\n\nWho found "
                                       "the silver key?\n\"\"\"\n/stats\n' | " CHAT),
                     0);
    has("The red lantern is in the cellar.\nread     40 tokens, 0 of them again");
    has("The silver key was found by Felix.\nread     76 tokens, 48 of them again");
    has("slots    1032 of 1032");
}

/* A conversation in turns reads what it would read in one piece: the tokens at hand are the
 * template's. */
static void a_turn_is_as_if_it_were_read_anew(void **state)
{
    char turns[sizeof out];
    (void)state;
    assert_int_equal(sh("printf '" ASK "Where is the lantern now?\n' | " CHAT " | tail -1"), 0);
    snprintf(turns, sizeof turns, "%s", out);
    assert_int_equal(sh("printf '" ASK "/session save %s/s\n' | " CHAT, dir), 0);
    has("Saved");
    assert_int_equal(sh("printf '/session load %s/s\n/cache\nWhere is the lantern now?\n' | " CHAT
                        " -b 16 -t 1",
                        dir),
                     0);
    has("Loaded: 3 messages, 48 tokens.");
    has("tokens   48 of 4096");
    has(turns);
}

static void commands_do_what_they_say(void **state)
{
    (void)state;
    assert_int_equal(sh("printf '/kv\n/kv snapkv@25%%%%\n/kv\n/kv nonsense\nHello there, who are "
                        "you?\n/cache\n/system Be brief.\n/reset\n/cache\n/what\n/session load "
                        "/nowhere/x\n/quit\nnever read\n' | " CHAT " 2>&1"),
                     0);
    has("policy   none");
    has("policy   snapkv@25%");
    has("\"nonsense\"");
    has("The conversation begins anew.");
    has("tokens   0 of 4096");
    has("there is no command /what");
    has("/nowhere/x.json");
    assert_null(strstr(out, "never read"));
    /* snapkv kept a quarter of what was read */
    assert_int_equal(sh("printf '%%s %%s %%s\n/kv\n/cache\n' \"$(head -c 1500 "
                        "data/eval/haystack.txt | tr '\\n' ' ')\" Who? Why? | " CHAT
                        " --kv snapkv@25%% -n 1"),
                     0);
    unsigned long long slots = 0, full = 1;
    const char *at = strstr(out, "slots    ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "slots    %llu of %llu", &slots, &full), 2);
    if (slots * 3 > full) fail_msg("%llu of %llu slots after snapkv@25%%", slots, full);
}

static void what_cannot_be_is_said(void **state)
{
    (void)state;
    assert_int_equal(sh("echo hi | ./winnow chat 2>&1"), 2);
    has("-m FILE");
    assert_int_equal(sh("./winnow chat --help"), 0);
    has("--template");
    assert_int_equal(sh("head -c 20000 data/eval/haystack.txt | tr '\\n' ' ' | " CHAT
                        " -c 512 2>&1"),
                     1);
    has("/reset");
    assert_int_equal(sh("printf '\\377\n' | " CHAT " 2>&1"), 1);
    has("UTF-8");
    assert_int_equal(sh("echo '{{ raise_exception(\"no chats today\") }}' > %s/t; echo hi | " CHAT
                        " --template %s/t 2>&1",
                        dir, dir),
                     1);
    has("the template refuses this conversation: no chats today");
    assert_int_equal(sh("echo '{%% for i in range(1000000000) %%}{%% endfor %%}' > %s/t; echo hi | "
                        "timeout 20 " CHAT " --template %s/t 2>&1",
                        dir, dir),
                     1);
    has("line 1, column");
    assert_int_equal(sh("echo hi | " CHAT " --template plain -n 3"), 0);
    assert_int_equal(sh("echo hi | ./winnow chat -m " MODEL " --kv nope 2>&1"), 2);
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_takes_a_users_message),
        cmocka_unit_test(lines_are_turns_and_the_cache_is_used_again),
        cmocka_unit_test(a_turn_is_as_if_it_were_read_anew),
        cmocka_unit_test(commands_do_what_they_say),
        cmocka_unit_test(what_cannot_be_is_said),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    sh("rm -rf %s", dir);
    return rc;
}
