/* cli/chat_input.c - see chat_input.h. The library asks for the prompt through a callback without
 * context, so the prompt at hand is the one static here; there is one terminal. */
#include "cli/chat_input.h"

#include "base/alloc.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct wn_input {
    EditLine *el;                       /* NULL: a pipe */
    History *history;
    char path[4096];                    /* of the history; empty: none */
    char *line;                         /* of a pipe */
    size_t cap;
};

static const char *prompt_text = "> ";
static char *prompt(EditLine *el)
{
    (void)el;
    return (char *)prompt_text;
}

/* Where the history is kept, its directory made. */
static void find_history(char *path, size_t cap)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char dir[4000] = "";
    *path = '\0';
    if (state && *state == '/') snprintf(dir, sizeof dir, "%.3900s", state);
    else if (home && *home == '/') snprintf(dir, sizeof dir, "%.3900s/.local/state", home);
    if (!*dir) return;
    size_t n = strlen(dir);
    snprintf(dir + n, sizeof dir - n, "/winnow");
    for (char *p = dir + 1; *p; p++) {
        if (*p != '/') continue;
        *p = '\0';
        mkdir(dir, 0700);
        *p = '/';
    }
    if (mkdir(dir, 0700) && errno != EEXIST) return;
    snprintf(path, cap, "%s/history", dir);
}

wn_status wn_input_open(wn_input **out, bool terminal, wn_err *err)
{
    HistEvent ev;
    wn_input *in = WN_NEW(wn_input);
    *out = in;
    if (!in) return wn_fail(err, WN_ENOMEM, "input: out of memory");
    if (!terminal) return WN_OK;
    setlocale(LC_CTYPE, "");            /* the editor counts columns of characters */
    in->el = el_init("winnow", stdin, stdout, stderr);
    in->history = history_init();
    if (!in->el || !in->history) {
        wn_input_close(in);
        *out = NULL;
        return wn_fail(err, WN_ENOMEM, "input: the line editor cannot be had");
    }
    el_set(in->el, EL_PROMPT, prompt);
    el_set(in->el, EL_EDITOR, "emacs");
    el_set(in->el, EL_SIGNAL, 0);
    history(in->history, &ev, H_SETSIZE, 1000);
    el_set(in->el, EL_HIST, history, in->history);
    el_source(in->el, NULL);
    find_history(in->path, sizeof in->path);
    if (*in->path) history(in->history, &ev, H_LOAD, in->path);
    return WN_OK;
}

void wn_input_close(wn_input *in)
{
    HistEvent ev;
    if (!in) return;
    if (in->history && *in->path) history(in->history, &ev, H_SAVE, in->path);
    if (in->history) history_end(in->history);
    if (in->el) el_end(in->el);
    free(in->line);
    wn_free(in);
}

/* One line without its line feed, borrowed until the next; NULL at the end. *n: its length. */
static const char *next_line(wn_input *in, const char *with_prompt, size_t *n)
{
    const char *line;
    int k = 0;
    if (!in->el) {
        ssize_t got = getline(&in->line, &in->cap, stdin);
        if (got < 0) return NULL;
        k = (int)got;
        line = in->line;
    } else {
        prompt_text = with_prompt;
        do {
            errno = 0;
            line = el_gets(in->el, &k);
            if (!line && errno == EINTR) putchar('\n');     /* Ctrl-C: an empty prompt again */
        } while (!line && errno == EINTR);
        if (!line || k <= 0) return NULL;
    }
    *n = (size_t)k;
    while (*n && (line[*n - 1] == '\n' || line[*n - 1] == '\r')) --*n;
    return line;
}

static bool add(char **text, size_t *n, const char *s, size_t k)
{
    char *p = wn_realloc(*text, *n + k + 1);
    if (!p) return false;
    memcpy(p + *n, s, k);
    *n += k;
    p[*n] = '\0';
    *text = p;
    return true;
}

static bool is_fence(const char *line, size_t n, const char *mark)
{
    return n == 3 && !memcmp(line, mark, 3);
}

/* Lines up to the mark; ``` is Markdown's, so it stays part of the message. */
static bool read_fenced(wn_input *in, const char *mark, char **text, size_t *len)
{
    bool keep = *mark == '`';
    const char *line;
    size_t n;
    if (keep && !add(text, len, "```\n", 4)) return false;
    while ((line = next_line(in, ". ", &n)) && !is_fence(line, n, mark))
        if (!add(text, len, line, n) || !add(text, len, "\n", 1)) return false;
    if (keep) return add(text, len, "```", 3);
    if (*len) (*text)[--*len] = '\0';
    return add(text, len, "", 0);
}

char *wn_input_message(wn_input *in)
{
    char *text = NULL;
    size_t len = 0, n;
    const char *line = next_line(in, "> ", &n);
    bool ok = true;
    HistEvent ev;
    if (!line) return NULL;
    if (is_fence(line, n, "\"\"\"") || is_fence(line, n, "```")) {
        char mark[4] = { line[0], line[0], line[0], 0 };
        ok = read_fenced(in, mark, &text, &len);
    } else {
        while (ok && line && n && line[n - 1] == '\\') {
            ok = add(&text, &len, line, n - 1) && add(&text, &len, "\n", 1);
            if (ok) line = next_line(in, ". ", &n);
        }
        if (ok && line) ok = add(&text, &len, line, n);
    }
    if (!ok) {
        wn_free(text);
        return NULL;
    }
    if (in->history && text && *text) history(in->history, &ev, H_ENTER, text);
    return text;
}
