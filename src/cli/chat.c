/* cli/chat.c - `winnow chat`: a conversation at a terminal, or line by line through a pipe.
 *
 * Each turn renders the whole conversation with the model's template, keeps what its tokens share
 * with the sequence at hand, and feeds the rest: the cache is read again, not computed again. A
 * mark stands where generation starts, so policies that decide at marks decide there.
 *
 *     read a message -> render all -> common prefix -> truncate -> feed the rest, mark -> answer
 *
 * Ctrl-C ends an answer, not the program. A policy given with /kv goes to the next turn: a
 * new sequence takes the place of the old one, and the conversation is read again with it.
 */
#include "cli/args.h"
#include "cli/chat_input.h"
#include "cli/chat_template.h"
#include "cli/cli.h"
#include "cli/long.h"
#include "cli/models.h"
#include "cli/policy.h"
#include "winnow_policy.h"

#include "base/alloc.h"
#include "base/os.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const char *model, *system, *template, *kv, *lib;
    const char *k_type, *v_type;
    long n_predict, n_ctx, threads, batch, seed, top_k;
    double temp, top_p, min_p;
    size_t mem;
    bool quiet;
} options;

typedef struct {
    const options *o;
    wn_model *m;
    wn_chat *chat;
    wn_engine *e;
    wn_seq *s;                          /* holds what has been read of the conversation; NULL:
                                           nothing */
    wn_sampler *sampler;
    wn_input *in;
    json_t *talk;                       /* messages */
    char *kv;                           /* the policy of the next sequence; NULL: none */
    bool tty;
    size_t prompt_tokens, reused, answered;     /* of the last turn */
    double read_s, answer_s;
} chat;

static volatile sig_atomic_t interrupted;
static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

static void say(const wn_err *err) { fprintf(stderr, "winnow chat: %s\n", err->text); }

/* False when the text is not UTF-8. */
static bool add_message(chat *c, const char *role, const char *content, size_t n)
{
    return !json_array_append_new(c->talk,
                                  json_pack("{s:s, s:s%}", "role", role, "content", content, n));
}

/* The system message is the first or there is none. */
static void set_system(chat *c, const char *text)
{
    json_t *first = json_array_get(c->talk, 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    if (role && !strcmp(role, "system")) json_array_remove(c->talk, 0);
    if (*text)
        json_array_insert_new(c->talk, 0,
                              json_pack("{s:s, s:s}", "role", "system", "content", text));
}

/* ---- a turn ------------------------------------------------------------------------------- */

/* Gives the sequence these tokens, computing only what it does not hold. */
static wn_status bring_up(chat *c, const int32_t *ids, size_t n, wn_err *err)
{
    wn_status st = WN_OK;
    size_t k = 0;
    if (!c->s && (st = wn_seq_open(&c->s, c->e, &(wn_seq_opts){ .kv = c->kv }, err))) return st;
    const int32_t *have = wn_seq_tokens(c->s);
    /* the last token's logits are wanted */
    size_t max = WN_MIN((size_t)wn_seq_n_tokens(c->s), n - 1);
    while (k < max && have[k] == ids[k]) k++;
    if ((st = wn_seq_truncate(c->s, (int)k, err))) return st;
    c->prompt_tokens = n;
    c->reused = WN_MIN((size_t)wn_seq_n_done(c->s), k);
    if ((st = wn_seq_feed(c->s, ids + k, n - k, err)) || (st = wn_seq_mark(c->s, err))) return st;
    for (int rows = 1; rows && !interrupted && !st;) st = wn_engine_step(c->e, &rows, err);
    return st;
}

typedef struct {
    char *p;
    size_t n, cap;
} text;

static bool append(text *t, const char *s, size_t n)
{
    if (t->n + n + 1 > t->cap) {
        size_t cap = 2 * (t->n + n + 1);
        char *p = wn_realloc(t->p, cap);
        if (!p) return false;
        t->p = p;
        t->cap = cap;
    }
    memcpy(t->p + t->n, s, n);
    t->n += n;
    t->p[t->n] = '\0';
    return true;
}

static wn_status show(text *answer, const char *s, size_t n, wn_err *err)
{
    fwrite(s, 1, n, stdout);
    if (fflush(stdout)) return wn_fail(err, WN_EIO, "the output cannot be written");
    return append(answer, s, n) ? WN_OK : wn_fail(err, WN_ENOMEM, "the answer: out of memory");
}

static wn_status answer(chat *c, text *out, wn_err *err)
{
    wn_text *t;
    size_t k;
    wn_status st = wn_text_open(&t, c->m, 0, err);
    if (st) return st;
    c->answered = 0;
    while (!interrupted && !st && (c->o->n_predict < 0 || (long)c->answered < c->o->n_predict)) {
        int32_t id;
        const float *logits = wn_seq_logits(c->s);
        if (!logits) break;             /* interrupted while reading */
        if ((st = wn_sampler_pick(c->sampler, logits, wn_seq_tokens(c->s), wn_seq_n_tokens(c->s),
                                  &id, err)))
            break;
        if (wn_model_is_end(c->m, id)) break;
        c->answered++;
        const char *s = wn_text_push(t, id, &k);
        if (!(st = show(out, s, k, err)) && !(st = wn_seq_feed(c->s, &id, 1, err)))
            st = wn_engine_step(c->e, NULL, err);
    }
    const char *s = wn_text_end(t, &k);
    if (!st) st = show(out, s, k, err);
    wn_text_close(t);
    return st;
}

/* A message and its answer join the conversation; a message that got none does not. */
static wn_status take_turn(chat *c, const char *message, wn_err *err)
{
    int32_t *ids = NULL;
    size_t n = 0, had = json_array_size(c->talk);
    text out = { 0 };
    char *json = add_message(c, "user", message, strlen(message))
                     ? json_dumps(c->talk, JSON_COMPACT)
                     : NULL;
    wn_status st = json ? wn_chat_tokens(c->chat, &(wn_chat_input){ .messages_json = json }, &ids,
                                         &n, err)
                        : wn_fail(err, WN_EINVAL, "the message is not UTF-8");
    free(json);
    if (!st && !n) st = wn_fail(err, WN_EINVAL, "the template makes nothing of this conversation");
    interrupted = 0;
    double t0 = wn_cli_now();
    if (!st) st = bring_up(c, ids, n, err);
    double t1 = wn_cli_now();
    if (!st) st = answer(c, &out, err);
    c->read_s = t1 - t0;
    c->answer_s = wn_cli_now() - t1;
    if (!st || out.n) putchar('\n');
    if (n && (st == WN_ELIMIT || st == WN_EFULL))
        fprintf(stderr, "(the context is full: /reset begins anew)\n");
    if ((st || interrupted) && !out.n)
        while (json_array_size(c->talk) > had) json_array_remove(c->talk, had);
    else add_message(c, "assistant", out.p ? out.p : "", out.n);
    if (interrupted && !st) fprintf(stderr, "(interrupted)\n");
    wn_free(out.p);
    wn_tokens_free(ids);
    return st;
}

/* ---- commands ------------------------------------------------------------------------------ */

static void forget_sequence(chat *c)
{
    wn_seq_close(c->s);
    c->s = NULL;
}

static wn_status do_help(chat *c, const char *arg, wn_err *err);

static wn_status do_reset(chat *c, const char *arg, wn_err *err)
{
    (void)arg, (void)err;
    json_array_clear(c->talk);
    if (c->o->system) set_system(c, c->o->system);
    forget_sequence(c);
    puts("The conversation begins anew.");
    return WN_OK;
}

static wn_status do_system(chat *c, const char *arg, wn_err *err)
{
    (void)err;
    set_system(c, arg);
    puts(*arg ? "The system message is set." : "There is no system message now.");
    return WN_OK;
}

static wn_status do_kv(chat *c, const char *arg, wn_err *err)
{
    if (*arg) {
        wn_status st = wn_policy_check(arg, err);
        char *kv = st ? NULL : wn_strdup(arg);
        if (st) return st;
        if (!kv) return wn_fail(err, WN_ENOMEM, "out of memory");
        wn_free(c->kv);
        c->kv = kv;
        forget_sequence(c);
        printf("From the next turn on: %s (the conversation is read again with it).\n", c->kv);
        return WN_OK;
    }
    printf("policy   %s\n", c->kv ? c->kv : "none");
    return WN_OK;
}

static wn_status do_cache(chat *c, const char *arg, wn_err *err)
{
    wn_seq_stats s = { 0 };
    wn_engine_info e;
    wn_model_info m;
    char b1[32], b2[32], b3[32];
    (void)arg, (void)err;
    if (c->s) wn_seq_get_stats(c->s, &s);
    wn_engine_get_info(c->e, &e);
    wn_model_get_info(c->m, &m);
    printf("tokens   %d of %d in context\n", c->s ? wn_seq_n_tokens(c->s) : 0, e.n_ctx);
    printf("cache    %s in use, %s at most; pool %s\n", wn_args_size((double)s.kv_bytes, b1),
           wn_args_size((double)s.kv_bytes_peak, b2), wn_args_size((double)e.pool, b3));
    printf("slots    %llu of %llu a full cache holds", (unsigned long long)s.kv_slots,
           (unsigned long long)s.kv_slots_full);
    if (m.n_layers) printf("; %.1f a layer", (double)s.kv_slots / m.n_layers);
    putchar('\n');
    return WN_OK;
}

static wn_status do_stats(chat *c, const char *arg, wn_err *err)
{
    (void)arg, (void)err;
    size_t computed = c->prompt_tokens - c->reused;
    printf("read     %zu tokens, %zu of them again from the cache, %.2f s, %.1f tokens/s\n",
           c->prompt_tokens, c->reused, c->read_s,
           c->read_s > 0 ? (double)computed / c->read_s : 0);
    printf("answer   %zu tokens, %.2f s, %.1f tokens/s\n", c->answered, c->answer_s,
           c->answer_s > 0 ? (double)c->answered / c->answer_s : 0);
    return do_cache(c, "", err);
}

/* The conversation goes beside the session, as FILE.json. */
static wn_status save(chat *c, const char *file, wn_err *err)
{
    char path[4096];
    if (!c->s) return wn_fail(err, WN_EINVAL, "there is nothing to save yet");
    if (snprintf(path, sizeof path, "%s.json", file) >= (int)sizeof path)
        return wn_fail(err, WN_EINVAL, "the name is too long");
    wn_status st = wn_seq_save(c->s, file, err);
    if (st) return st;
    if (json_dump_file(c->talk, path, JSON_INDENT(1)))
        return wn_fail(err, WN_EIO, "%s cannot be written", path);
    printf("Saved: %s (cache), %s (conversation).\n", file, path);
    return WN_OK;
}

static wn_status load(chat *c, const char *file, wn_err *err)
{
    char path[4096];
    json_error_t e;
    wn_seq *s;
    if (snprintf(path, sizeof path, "%s.json", file) >= (int)sizeof path)
        return wn_fail(err, WN_EINVAL, "the name is too long");
    json_t *talk = json_load_file(path, 0, &e);
    if (!json_is_array(talk)) {
        json_decref(talk);
        return wn_fail(err, WN_EIO, "%s: %s", path, talk ? "no conversation" : e.text);
    }
    forget_sequence(c);
    wn_status st = wn_seq_open(&s, c->e, &(wn_seq_opts){ .kv = c->kv }, err);
    if (!st && (st = wn_seq_load(s, file, err))) wn_seq_close(s);
    if (st) {
        json_decref(talk);
        return st;
    }
    c->s = s;
    json_decref(c->talk);
    c->talk = talk;
    printf("Loaded: %zu messages, %d tokens.\n", json_array_size(talk), wn_seq_n_tokens(s));
    return WN_OK;
}

static wn_status do_session(chat *c, const char *arg, wn_err *err)
{
    bool saves = !strncmp(arg, "save ", 5), loads = !strncmp(arg, "load ", 5);
    if ((!saves && !loads) || !arg[5])
        return wn_fail(err, WN_EINVAL, "write /session save FILE or /session load FILE");
    return saves ? save(c, arg + 5, err) : load(c, arg + 5, err);
}

static const struct {
    const char *name, *args, *what;
    wn_status (*run)(chat *c, const char *arg, wn_err *err);
} commands[] = {
    { "help", "", "this list", do_help },
    { "kv", "[POLICY]", "the cache policy; with POLICY: another one from the next turn on", do_kv },
    { "cache", "", "what the cache holds", do_cache },
    { "stats", "", "figures of the last turn", do_stats },
    { "session", "save|load FILE", "the conversation and its cache, to and from files",
      do_session },
    { "system", "[TEXT]", "another system message, or none", do_system },
    { "reset", "", "begin anew", do_reset },
    { "quit", "", "leave (also Ctrl-D)", NULL },
};

static wn_status do_help(chat *c, const char *arg, wn_err *err)
{
    (void)c, (void)arg, (void)err;
    for (size_t i = 0; i < WN_COUNT(commands); i++) {
        int n = printf("  /%s %s", commands[i].name, commands[i].args);
        printf("%*s%s\n", n < 30 ? 30 - n : 1, "", commands[i].what);
    }
    puts("A line that ends with \\ goes on in the next one; \"\"\" alone in a line begins and ends "
         "a longer text.");
    return WN_OK;
}

/* False: leave. */
static bool run_command(chat *c, const char *line)
{
    size_t n = strcspn(line + 1, " ");
    const char *arg = line + 1 + n + strspn(line + 1 + n, " ");
    wn_err err;
    for (size_t i = 0; i < WN_COUNT(commands); i++) {
        if (strlen(commands[i].name) != n || strncmp(commands[i].name, line + 1, n)) continue;
        if (!commands[i].run) return false;
        if (commands[i].run(c, arg, &err)) say(&err);
        fflush(stdout);
        return true;
    }
    fprintf(stderr, "there is no command %.40s; /help lists them\n", line);
    return true;
}

/* ---- the conversation ------------------------------------------------------------------------ */

static int converse(chat *c)
{
    bool ok = true;
    char *line;
    wn_err err;
    if (c->tty && !c->o->quiet)
        puts("Write a message, or /help; Ctrl-C stops an answer, Ctrl-D leaves.");
    while ((line = wn_input_message(c->in))) {
        bool go_on = true;
        if (line[0] == '/') go_on = run_command(c, line);
        else if (line[strspn(line, " \t\n")] && take_turn(c, line, &err)) {
            say(&err);
            ok = c->tty;                /* a script is told at once, a person goes on */
            if (!ok) go_on = false;
        }
        wn_free(line);
        if (!go_on) break;
    }
    return ok ? WN_EXIT_OK : WN_EXIT_FAILED;
}

static wn_status open_all(chat *c, wn_err *err)
{
    const options *o = c->o;
    wn_model_info mi;
    wn_status st = wn_cli_open_model(&c->m, o->model,
                                     &(wn_model_opts){ .n_threads = (int)o->threads }, err);
    if (st || (st = wn_cli_open_chat(&c->chat, c->m, o->template, err))) return st;
    wn_model_get_info(c->m, &mi);
    wn_engine_opts eo = { .n_threads = (int)o->threads, .mem = o->mem, .n_ctx = (int)o->n_ctx,
                          .n_batch = (int)o->batch, .k_type = o->k_type, .v_type = o->v_type,
                          .kv = o->kv };
    if ((st = wn_engine_open(&c->e, c->m, &eo, err))) return st;
    wn_sampling s = wn_sampling_defaults();
    s.temperature = (float)o->temp;
    s.top_k = (int)o->top_k;
    s.top_p = (float)o->top_p;
    s.min_p = (float)o->min_p;
    s.seed = o->seed >= 0 ? (uint64_t)o->seed : wn_os_now_us();
    if ((st = wn_sampler_open(&c->sampler, &s, mi.n_vocab, err))) return st;
    if (o->kv && !(c->kv = wn_strdup(o->kv))) return wn_fail(err, WN_ENOMEM, "out of memory");
    if (!(c->talk = json_array())) return wn_fail(err, WN_ENOMEM, "out of memory");
    if (o->system) set_system(c, o->system);
    return wn_input_open(&c->in, c->tty, err);
}

static int run(const options *o)
{
    chat c = { .o = o, .tty = isatty(STDIN_FILENO) };
    wn_err err;
    int rc = WN_EXIT_FAILED;
    if (open_all(&c, &err)) say(&err);
    else {
        /* No SA_RESTART: Ctrl-C while a line is edited reaches the editor. */
        struct sigaction sa = { .sa_handler = on_interrupt };
        sigemptyset(&sa.sa_mask);
        sigaction(SIGINT, &sa, NULL);
        rc = converse(&c);
    }
    wn_input_close(c.in);
    wn_seq_close(c.s);
    wn_sampler_close(c.sampler);
    wn_engine_close(c.e);
    wn_chat_close(c.chat);
    wn_model_close(c.m);
    json_decref(c.talk);
    wn_free(c.kv);
    return rc;
}

const wn_help_page wn_cli_chat_page = {
    .command = "chat",
    .summary = "a conversation, in the model's own form",
    .usage = "-m MODEL [options]",
    .about =
        "A conversation in the form of the model's own template. Messages come from the terminal, "
        "with\n"
        "editing and history, or line by line from a pipe; answers go to standard output. Each "
        "turn computes\n"
        "only what is new. Ctrl-C ends an answer, Ctrl-D the conversation; /help lists commands.",
    .examples = "winnow chat -m models/winnow-demo.gguf --temp 0",
};

int wn_cli_chat(int argc, char **argv)
{
    wn_sampling d = wn_sampling_defaults();
    options o = { .n_predict = -1, .seed = -1, .temp = (double)d.temperature, .top_k = d.top_k,
                  .top_p = (double)d.top_p, .min_p = (double)d.min_p, .k_type = "f16",
                  .v_type = "f16" };
    const wn_arg table[] = {
        { 0, "Conversation", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
        { 'm', "model", WN_ARG_STRING, &o.model, "MODEL",
          "GGUF file, or the first part of a split one, or the name of a model (winnow models)", 0,
          0, 0 },
        { 0, "system", WN_ARG_STRING, &o.system, "TEXT", "the system message", 0, 0, 0 },
        { 0, "template", WN_ARG_STRING, &o.template, "FILE", WN_CLI_TEMPLATE_HELP, 0, 0, 0 },
        { 'n', "n-predict", WN_ARG_INT, &o.n_predict, "N",
          "tokens of an answer at most (default -1: to its end)", -1, 1e9, "predict" },
        { 's', "seed", WN_ARG_INT, &o.seed, "N", "of the random numbers; -1: a new one (default)",
          -1, 4294967295.0, 0 },
        { 0, "temp", WN_ARG_FLOAT, &o.temp, "X", "temperature; 0 is greedy (default 0.8)", 0, 100,
          0 },
        { 0, "top-k", WN_ARG_INT, &o.top_k, "N", "the N most likely tokens; 0: all (default 40)", 0,
          1e9, 0 },
        { 0, "top-p", WN_ARG_FLOAT, &o.top_p, "X",
          "the most likely tokens that sum to X (default 0.95)", 0, 1, 0 },
        { 0, "min-p", WN_ARG_FLOAT, &o.min_p, "X",
          "tokens at least X times as likely as the first (default 0.05)", 0, 1, 0 },
        { 0, "Cache and machine", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
        { 'c', "ctx-size", WN_ARG_INT, &o.n_ctx, "N",
          "longest conversation in tokens (default: what the model was trained for)", 0, 1e9, 0 },
        { 0, "mem", WN_ARG_BYTES, &o.mem, "SIZE",
          "ceiling for everything: weights, cache, scratch (default: 80 % of what is\navailable); "
          "6GiB, 900M",
          0, 0, 0 },
        { 0, "kv", WN_ARG_STRING, &o.kv, "POLICY",
          "what the cache keeps (default none: everything); /kv changes it", 0, 0, 0 },
        { 0, "policy-lib", WN_ARG_STRING, &o.lib, "FILE", WN_CLI_POLICY_LIB_HELP, 0, 0, 0 },
        { 0, "cache-type-k", WN_ARG_STRING, &o.k_type, "TYPE", "format of the keys (default f16)",
          0, 0, "-ctk" },
        { 0, "cache-type-v", WN_ARG_STRING, &o.v_type, "TYPE", "format of the values (default f16)",
          0, 0, "-ctv" },
        { 't', "threads", WN_ARG_INT, &o.threads, "N",
          "threads (default: all processors); changes no output", 0, 256, 0 },
        { 'b', "batch-size", WN_ARG_INT, &o.batch, "N",
          "rows of one pass (default 512); changes no output", 0, 4096, 0 },
        { 'q', "quiet", WN_ARG_FLAG, &o.quiet, NULL, "no greeting", 0, 0, 0 },
    };
    const char *word;
    int rc;
    if (!wn_cli_parse(&wn_cli_chat_page, table, (int)WN_COUNT(table), argc, argv, &word, &rc))
        return rc;
    if (word && !o.model) o.model = word;
    else if (word) {
        fprintf(stderr,
                "winnow chat: \"%.60s\" is not an option; messages come from standard input\n",
                word);
        return WN_EXIT_USAGE;
    }
    if (!o.model) {
        fprintf(stderr, "winnow chat: which model? give -m FILE (a GGUF file)\n");
        return WN_EXIT_USAGE;
    }
    if ((rc = wn_cli_policy("chat", o.lib, o.kv))) return rc;
    return run(&o);
}
