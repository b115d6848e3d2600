/* cli/run.c - `winnow run`: a prompt in, text out.
 *
 * The command is a loop over the public interface: feed the prompt, step until its logits
 * are there (with progress on a terminal), then sample, print, feed, step. With --session
 * the part of the prompt that the file already holds is not computed again. Text goes to
 * stdout as it comes, everything else to stderr; --json prints one line last, on stdout.
 */
#include "cli/args.h"
#include "cli/chat_template.h"
#include "cli/cli.h"
#include "cli/io.h"
#include "cli/models.h"
#include "cli/policy.h"
#include "cli/ranges.h"

#include "base/alloc.h"
#include "base/os.h"
#include "eval/watch.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_SPANS = 64 };

typedef struct {
    const char *model, *prompt, *system, *template, *file, *tokens_file, *dump, *session, *trace,
        *explain;
    long n_predict, n_ctx, threads, batch, page_slots, top_k, last_n, seed;
    double temp, top_p, min_p, repeat, presence, frequency;
    const char *k_type, *v_type, *bias, *kv, *lib, *profile, *calibration;
    wn_arg_list protect, span;
    size_t mem;
    bool json, parse_special, no_bos, special, ignore_eos, no_repack, quiet, echo, session_ro,
        trace_rows, chat;
} options;

typedef struct {                        /* what the last line reports */
    size_t prompt_tokens, generated, cached;
    double load_s, prefill_s, decode_s;
    const char *stop;
} figures;

static volatile sig_atomic_t interrupted;
static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

static double now(void) { return (double)wn_os_now_us() * 1e-6; }

static int fail(const wn_err *err)
{
    fprintf(stderr, "winnow run: %s\n", err->text);
    return WN_EXIT_FAILED;
}

/* --chat: the text as the user's message, in the model's own form. */
static wn_status ask(const options *o, const wn_model *m, const char *text, int32_t **ids,
                     size_t *n, wn_err *err)
{
    wn_chat *c;
    wn_status st = wn_cli_open_chat(&c, m, o->template, err);
    if (st) return st;
    const wn_message talk[] = { { "system", o->system }, { "user", text } };
    st = wn_chat_tokens(c, &(wn_chat_input){ .messages = talk + !o->system,
                                             .n_messages = 1 + !!o->system }, ids, n, err);
    wn_chat_close(c);
    return st;
}

/* The prompt as tokens: from --tokens, or the text of -f, -p and stdin in that order, of which
 * those at the bytes of --protect and --span are noted. */
static wn_status read_prompt(const options *o, const wn_model *m, int32_t **ids, size_t *n,
                             wn_cli_span *kept, wn_cli_span *spans, wn_err *err)
{
    char *text = NULL, *tail = NULL;
    size_t len = 0;
    wn_status st;
    if (o->tokens_file) {
        if ((st = wn_cli_read_all(o->tokens_file, &text, &len, err))) return st;
        if (len % sizeof(int32_t) || !len) {
            wn_free(text);
            return wn_fail(err, WN_EFORMAT, "%s: %zu bytes are not a list of int32 token ids",
                           o->tokens_file, len);
        }
        *ids = (int32_t *)(void *)text;
        *n = len / sizeof(int32_t);
        return WN_OK;
    }
    if (o->file && (st = wn_cli_read_all(o->file, &text, &len, err))) return st;
    if (!o->file && !o->prompt && (st = wn_cli_read_all("-", &text, &len, err))) return st;
    if (o->prompt) {
        size_t add = strlen(o->prompt);
        tail = wn_realloc(text, len + add + 1);
        if (!tail) {
            wn_free(text);
            return wn_fail(err, WN_ENOMEM, "prompt: out of memory");
        }
        text = tail;
        memcpy(text + len, o->prompt, add + 1);
        len += add;
    }
    unsigned flags = (o->parse_special ? WN_PARSE_SPECIAL : 0) | (o->no_bos ? WN_NO_BOS : 0);
    st = o->chat ? ask(o, m, text, ids, n, err)
                 : wn_tokens_from_text(m, text, len, flags, ids, n, err);
    if (!st) st = wn_cli_spans("--protect", &o->protect, m, *ids, *n, text, len, kept, err);
    if (!st) st = wn_cli_spans("--span", &o->span, m, *ids, *n, text, len, spans, err);
    wn_free(text);
    if (!st && *n == 0) {
        int32_t bos = wn_model_bos(m);
        if (bos < 0) return wn_fail(err, WN_EINVAL, "the prompt is empty");
        (*ids)[0] = bos;                /* the tokenizer's block has room for one */
        *n = 1;
    }
    return st;
}

/* ---- progress ------------------------------------------------------------------- */

static void show_progress(const char *what, double done, double total, double seconds)
{
    double rate = seconds > 0 ? done / seconds : 0;
    double eta = rate > 0 ? (total - done) / rate : 0;
    int bar = total > 0 ? (int)(20 * done / total) : 0;
    fprintf(stderr, "\r%s [%.*s%.*s] %3.0f %%  %.0f/%.0f tokens  %.1f tok/s  %.0f s left ", what,
            bar, "####################", 20 - bar, "....................",
            total > 0 ? 100 * done / total : 100, done, total, rate, eta);
    fflush(stderr);
}

static void clear_progress(void) { fputs("\r\033[K", stderr); }

static void load_progress(void *ctx, double done)
{
    double start = *(double *)ctx;
    if (now() - start < 0.5) return;
    fprintf(stderr, "\rrepacking weights %3.0f %% ", 100 * done);
    if (done >= 1) clear_progress();
}

/* ---- the run ---------------------------------------------------------------------- */

typedef struct {
    const options *o;
    wn_model *m;
    wn_engine *e;
    wn_seq *s;
    wn_sampler *sampler;
    wn_text *text;
    wn_watch *watch;
    FILE *dump;
    char *out;                          /* what was generated, for --json */
    size_t out_len, out_cap;
    bool dump_failed;
    size_t n_vocab;
    wn_cli_span kept[MAX_SPANS], spans[MAX_SPANS];      /* of --protect and --span */
} session;

static void dump_logits(void *ctx, int pos, const float *logits)
{
    session *r = ctx;
    (void)pos;
    if (fwrite(logits, sizeof(float), r->n_vocab, r->dump) != r->n_vocab) r->dump_failed = true;
}

static bool emit(session *r, const char *s, size_t n)
{
    if (!n) return true;
    if (r->o->json) {
        if (r->out_len + n + 1 > r->out_cap) {
            size_t cap = 2 * (r->out_len + n + 1);
            char *p = wn_realloc(r->out, cap);
            if (!p) return false;
            r->out = p;
            r->out_cap = cap;
        }
        memcpy(r->out + r->out_len, s, n);
        r->out_len += n;
        r->out[r->out_len] = '\0';
        return true;
    }
    fwrite(s, 1, n, stdout);
    return fflush(stdout) == 0;
}

/* Parses --logit-bias "id:value,id:value". */
static wn_status parse_bias(const char *s, wn_logit_bias **out, int *n, wn_err *err)
{
    const char *p = s;
    *out = NULL;
    *n = 0;
    if (!s) return WN_OK;
    *out = WN_NEW_ARRAY(wn_logit_bias, strlen(s) + 1);
    if (!*out) return wn_fail(err, WN_ENOMEM, "--logit-bias: out of memory");
    while (*p) {
        char *end;
        long id = strtol(p, &end, 10);
        if (end == p || *end != ':')
            return wn_fail(err, WN_EINVAL, "--logit-bias \"%.60s\": expected id:value[,id:value]",
                           s);
        p = end + 1;
        float v = strtof(p, &end);
        if (end == p || (*end && *end != ','))
            return wn_fail(err, WN_EINVAL, "--logit-bias \"%.60s\": expected id:value[,id:value]",
                           s);
        (*out)[(*n)++] = (wn_logit_bias){ .id = (int32_t)id, .bias = v };
        p = *end ? end + 1 : end;
    }
    return WN_OK;
}

static wn_status open_sampler(session *r, uint64_t seed, wn_err *err)
{
    const options *o = r->o;
    wn_sampling s = wn_sampling_defaults();
    wn_logit_bias *bias = NULL;
    wn_status st = parse_bias(o->bias, &bias, &s.n_bias, err);
    s.temperature = (float)o->temp;
    s.top_k = (int)o->top_k;
    s.top_p = (float)o->top_p;
    s.min_p = (float)o->min_p;
    s.penalty_last_n = (int)o->last_n;
    s.repeat_penalty = (float)o->repeat;
    s.presence_penalty = (float)o->presence;
    s.frequency_penalty = (float)o->frequency;
    s.seed = seed;
    s.bias = bias;
    if (!st) st = wn_sampler_open(&r->sampler, &s, (int)r->n_vocab, err);
    wn_free(bias);
    return st;
}

/* Loads the session file, if there is one, and keeps what it shares with the prompt. */
static wn_status resume(session *r, const int32_t *ids, size_t n, size_t *cached, wn_err *err)
{
    *cached = 0;
    if (!r->o->session || access(r->o->session, F_OK)) return WN_OK;
    wn_status st = wn_seq_load(r->s, r->o->session, err);
    if (st) return st;
    const int32_t *have = wn_seq_tokens(r->s);
    /* the last token is always computed */
    size_t k = 0, max = WN_MIN((size_t)wn_seq_n_tokens(r->s), n - 1);
    while (k < max && have[k] == ids[k]) k++;
    if (!r->o->quiet && k < (size_t)wn_seq_n_tokens(r->s))
        fprintf(stderr, "session %s: holds %d tokens, the first %zu are this prompt's\n",
                r->o->session, wn_seq_n_tokens(r->s), k);
    if ((st = wn_seq_truncate(r->s, (int)k, err))) return st;
    *cached = (size_t)wn_seq_n_done(r->s);
    if (!r->o->quiet && *cached < k)    /* what was encoded or decided since does not come back by
                                           cutting */
        fprintf(
            stderr,
            "session %s: the cache can go on from token %zu, what comes after is computed again\n",
            r->o->session, *cached);
    return WN_OK;
}

static wn_status name_ranges(session *r, wn_err *err)
{
    wn_status st = WN_OK;
    for (int i = 0; i < r->o->protect.n && !st; i++)
        if ((st = wn_seq_protect(r->s, r->kept[i].from, r->kept[i].to, WN_RANGE_NAMED, err)))
            wn_fail_prefix(err, st, "--protect %s", r->o->protect.items[i]);
    for (int i = 0; i < r->o->span.n && !st; i++)
        if ((st = wn_seq_name_span(r->s, r->spans[i].from, r->spans[i].to, err)))
            wn_fail_prefix(err, st, "--span %s", r->o->span.items[i]);
    return st;
}

static wn_status prefill(session *r, size_t n, size_t cached, wn_err *err)
{
    bool show = isatty(STDERR_FILENO) && !r->o->quiet;
    double start = now(), last = start;
    int rows;
    do {
        wn_status st = wn_engine_step(r->e, &rows, err);
        if (st) return st;
        double t = now();
        if (show && t - start > 0.7 && t - last > 0.1) {
            last = t;
            show_progress("reading", (double)wn_seq_n_done(r->s) - (double)cached,
                          (double)(n - cached), t - start);
        }
    } while (rows > 0 && !interrupted);
    if (show && last > start) clear_progress();
    return WN_OK;
}

static wn_status generate(session *r, long limit, figures *f, wn_err *err)
{
    wn_status st;
    f->stop = "length";
    while ((long)f->generated < limit && !interrupted) {
        int32_t id;
        size_t k;
        const float *logits = wn_seq_logits(r->s);
        if ((st = wn_sampler_pick(r->sampler, logits, wn_seq_tokens(r->s), wn_seq_n_tokens(r->s),
                                  &id, err)))
            return st;
        if (wn_model_is_end(r->m, id) && !r->o->ignore_eos) {
            f->stop = "end";
            break;
        }
        f->generated++;
        const char *s = wn_text_push(r->text, id, &k);
        if (!emit(r, s, k))
            return wn_fail(err, WN_EIO, "the output cannot be written: %s", strerror(errno));
        if ((st = wn_seq_feed(r->s, &id, 1, err))) return st;
        /* nobody will ask for the next logits */
        if ((long)f->generated == limit && !r->o->session) break;
        if ((st = wn_engine_step(r->e, NULL, err))) return st;
    }
    if (interrupted) f->stop = "interrupted";
    size_t k;
    const char *s = wn_text_end(r->text, &k);
    emit(r, s, k);
    return WN_OK;
}

/* ---- reports ---------------------------------------------------------------------- */

static void report(const session *r, const figures *f)
{
    wn_seq_stats s;
    wn_engine_info ei;
    char b1[32], b2[32], b3[32], b4[32];
    size_t computed = f->prompt_tokens - f->cached;
    wn_seq_get_stats(r->s, &s);
    wn_engine_get_info(r->e, &ei);
    fprintf(stderr, "\nload     %.2f s   (weights %s, cache pool %s, scratch %s, numerics %s)\n",
            f->load_s, wn_args_size((double)ei.weights, b1), wn_args_size((double)ei.pool, b2),
            wn_args_size((double)ei.scratch, b3), ei.numerics);
    fprintf(stderr, "prompt   %zu tokens, %zu from the session, %.2f s, %.1f tokens/s\n",
            f->prompt_tokens, f->cached, f->prefill_s,
            f->prefill_s > 0 ? (double)computed / f->prefill_s : 0);
    fprintf(stderr, "answer   %zu tokens, %.2f s, %.1f tokens/s (stopped: %s)\n", f->generated,
            f->decode_s, f->decode_s > 0 ? (double)f->generated / f->decode_s : 0, f->stop);
    fprintf(stderr, "cache    %s in use, %s at most, %llu slots of %llu a full cache holds\n",
            wn_args_size((double)s.kv_bytes, b1), wn_args_size((double)s.kv_bytes_peak, b4),
            (unsigned long long)s.kv_slots, (unsigned long long)s.kv_slots_full);
}

static int report_json(const session *r, const figures *f, uint64_t seed)
{
    wn_seq_stats s;
    wn_seq_get_stats(r->s, &s);
    size_t computed = f->prompt_tokens - f->cached;
    json_t *text = json_stringn(r->out ? r->out : "", r->out_len);
    json_t *j = json_pack("{s:o?, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:I, s:s, s:I, s:f}",
                          "text", text, "prompt_tokens", (json_int_t)f->prompt_tokens, "generated",
                          (json_int_t)f->generated, "cached_tokens", (json_int_t)f->cached,
                          "prefill_tps", f->prefill_s > 0 ? (double)computed / f->prefill_s : 0.0,
                          "decode_tps", f->decode_s > 0 ? (double)f->generated / f->decode_s : 0.0,
                          "kv_bytes", (json_int_t)s.kv_bytes, "kv_bytes_peak",
                          (json_int_t)s.kv_bytes_peak, "kv_slots", (json_int_t)s.kv_slots,
                          "kv_slots_full", (json_int_t)s.kv_slots_full, "stop", f->stop, "seed",
                          (json_int_t)seed, "load_s", f->load_s);
    char *line = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(j);
    if (!line) {
        fprintf(stderr, "winnow run: the JSON line could not be made\n");
        return WN_EXIT_FAILED;
    }
    puts(line);
    free(line);
    return WN_EXIT_OK;
}

/* Opens the engine and the sequence for a prompt of n tokens. */
static wn_status open_engine(session *r, size_t n, long *limit, wn_err *err)
{
    const options *o = r->o;
    wn_model_info mi;
    wn_engine_info ei;
    wn_model_get_info(r->m, &mi);
    long ctx = o->n_ctx ? o->n_ctx : mi.n_ctx_train;
    if ((long)n + (o->n_predict != 0) > ctx)
        return wn_fail(err, WN_ELIMIT,
                       "the prompt has %zu tokens, the context is %ld%s: shorten the prompt%s", n,
                       ctx, o->n_ctx ? " (-c)" : " (what the model was trained for)",
                       o->n_ctx ? " or raise -c" : "");
    wn_engine_opts eo = {
        .n_threads = (int)o->threads, .mem = o->mem, .n_ctx = (int)o->n_ctx,
        .n_batch = (int)o->batch, .k_type = o->k_type, .v_type = o->v_type, .kv = o->kv,
        .profile = o->profile, .calibration = o->calibration, .page_slots = (int)o->page_slots,
    };
    for (int i = 0; i < o->protect.n; i++) eo.protected_tokens += r->kept[i].to - r->kept[i].from;
    if (o->n_predict >= 0) eo.pool_tokens = WN_MIN((int64_t)n + o->n_predict, (int64_t)ctx);
    wn_status st = wn_engine_open(&r->e, r->m, &eo, err);
    if (st) return st;
    wn_engine_get_info(r->e, &ei);
    long max = o->n_predict >= 0 ? WN_MIN((long)n + o->n_predict, ctx) : WN_MIN(ctx, (long)ei.room);
    if (max < (long)n) max = (long)n;   /* the sequence's own refusal has the numbers */
    /* Without -n nobody knows how long the answer gets: the promise grows with it. */
    wn_seq_opts so = { .max_tokens = o->n_predict >= 0 ? (int)max : 0, .kv = o->kv,
                       .ring_rows = o->trace_rows ? 64 : 0 };
    if (r->dump) {
        so.on_logits = dump_logits;
        so.on_logits_ctx = r;
    }
    *limit = max - (long)n;
    return wn_seq_open(&r->s, r->e, &so, err);
}

/* ---- watching the policy ---------------------------------------------------------- */

static wn_status watch(session *r, const int32_t *ids, size_t n, wn_err *err)
{
    wn_watch_opts w = { .trace = r->o->trace, .rows = r->o->trace_rows };
    wn_status st;
    if (!r->o->trace && !r->o->explain) return WN_OK;
    if (r->o->explain && !wn_cli_range(r->o->explain, &w.explain_from, &w.explain_to) &&
        (st = wn_cli_find_text(r->m, ids, n, r->o->explain, &w.explain_from, &w.explain_to, err)))
        return st;
    return wn_watch_open(&r->watch, r->s, &w, err);
}

static wn_status stop_watching(session *r, wn_err *err)
{
    const wn_explain *x = wn_watch_explains(r->watch);
    wn_watch *w = r->watch;
    fflush(stdout);                     /* on a terminal both are one text */
    if (x) wn_explain_print(x, stderr, wn_seq_n_done(r->s));
    r->watch = NULL;
    return wn_watch_close(w, err);
}

static int run(const options *o)
{
    session r = { .o = o };
    figures f = { .stop = "length" };
    wn_model_info mi;
    wn_err err;
    wn_status st;
    int32_t *ids = NULL;
    size_t n = 0;
    long limit = 0;
    double t0 = now();
    int rc = WN_EXIT_FAILED;
    uint64_t seed = o->seed >= 0 ? (uint64_t)o->seed
                                 : (uint64_t)wn_os_now_us() * 2654435761u % 4294967296u;
    wn_model_opts mo = { .n_threads = (int)o->threads, .no_repack = o->no_repack };
    if (isatty(STDERR_FILENO) && !o->quiet) {
        mo.progress = load_progress;
        mo.progress_ctx = &t0;
    }
    if ((st = wn_cli_open_model(&r.m, o->model, &mo, &err))) goto fail;
    wn_model_get_info(r.m, &mi);
    r.n_vocab = (size_t)mi.n_vocab;
    if ((st = read_prompt(o, r.m, &ids, &n, r.kept, r.spans, &err))) goto fail;
    if (o->dump && !(r.dump = fopen(o->dump, "wb"))) {
        st = wn_fail(&err, WN_EIO, "%s: %s", o->dump, strerror(errno));
        goto fail;
    }
    if ((st = open_engine(&r, n, &limit, &err))) goto fail;
    if ((st = open_sampler(&r, seed, &err))) goto fail;
    if ((st = wn_text_open(&r.text, r.m, o->special ? WN_SHOW_SPECIAL : 0, &err))) goto fail;
    if ((st = resume(&r, ids, n, &f.cached, &err)) || (st = name_ranges(&r, &err)) ||
        (st = watch(&r, ids, n, &err)))
        goto fail;
    f.load_s = now() - t0;
    f.prompt_tokens = n;
    signal(SIGINT, on_interrupt);

    double t1 = now();
    size_t have = (size_t)wn_seq_n_tokens(r.s);
    if ((st = wn_seq_feed(r.s, ids + have, n - have, &err)) || (st = wn_seq_mark(r.s, &err)))
        goto fail;
    if ((st = prefill(&r, n, f.cached, &err))) goto fail;
    double t2 = now();
    f.prefill_s = t2 - t1;
    if (o->echo && o->prompt && !o->json) fputs(o->prompt, stdout);
    if (!interrupted && (st = generate(&r, limit, &f, &err))) goto fail;
    f.decode_s = now() - t2;
    if (!o->json && f.generated) putchar('\n');
    if (o->session && !o->session_ro && (st = wn_seq_save(r.s, o->session, &err))) goto fail;
    if (r.dump && (fclose(r.dump) || r.dump_failed)) {
        r.dump = NULL;
        st = wn_fail(&err, WN_EIO, "%s: could not be written whole", o->dump);
        goto fail;
    }
    r.dump = NULL;
    if (!o->quiet) report(&r, &f);
    if ((st = stop_watching(&r, &err))) goto fail;
    if (!o->quiet && o->temp > 0 && f.generated)
        fprintf(stderr, "seed     %llu\n", (unsigned long long)seed);
    rc = o->json ? report_json(&r, &f, seed) : WN_EXIT_OK;
    st = WN_OK;
fail:
    if (st) rc = fail(&err);
    if (r.dump) fclose(r.dump);
    wn_tokens_free(ids);
    wn_text_close(r.text);
    wn_sampler_close(r.sampler);
    wn_watch_close(r.watch, NULL);
    wn_seq_close(r.s);
    wn_engine_close(r.e);
    wn_model_close(r.m);
    wn_free(r.out);
    return rc;
}

const wn_help_page wn_cli_run_page = {
    .command = "run",
    .summary = "read a prompt, continue it",
    .usage = "-m MODEL [-p TEXT | -f FILE] [options]",
    .about = "Reads a prompt, continues it, prints the text as it comes; timings and memory go to\n"
             "standard error. Every option has an environment twin: --top-k is WN_TOP_K.",
    .examples = "winnow run -m models/winnow-demo.gguf -f book.txt -p $'\\n\\nQuestion: Who found "
                "the silver key?\\nAnswer: ' "
                "-n 32 --temp 0",
};

static int usage(const char *says)
{
    fprintf(stderr, "winnow run: %s\n", says);
    return WN_EXIT_USAGE;
}

/* What the table cannot say: options that need or exclude each other; texts that must be
 * understood. */
static int check(const options *o)
{
    int rc;
    if (!o->model) return usage("which model? give -m FILE (a GGUF file)");
    if (o->tokens_file && (o->protect.n || o->span.n))
        return usage("--protect and --span name bytes of a text, and --tokens has none");
    if (o->tokens_file && (o->prompt || o->file))
        return usage("--tokens takes the place of -p and -f; give one or the other");
    if (o->chat && (o->tokens_file || o->parse_special || o->no_bos || o->protect.n || o->span.n))
        return usage("--chat lets the model's template make the prompt; --tokens, --parse-special, "
                     "--no-bos, "
                     "--protect and --span do not go with it");
    if (!o->chat && o->system) return usage("--system goes with --chat");
    if (!o->chat && o->template) return usage("--template goes with --chat");
    if ((rc = wn_cli_policy("run", o->lib, o->kv)) ||
        (rc = wn_cli_formats("run", o->k_type, o->v_type)))
        return rc;
    if (o->trace_rows && !o->trace)
        return usage("--trace-rows says what goes into a trace; name its file with --trace");
    return 0;
}

int wn_cli_run(int argc, char **argv)
{
    wn_sampling d = wn_sampling_defaults();
    const char *protect_items[MAX_SPANS], *span_items[MAX_SPANS];
    options o = {
        .protect = { protect_items, 0, MAX_SPANS }, .span = { span_items, 0, MAX_SPANS },
        .n_predict = -1, .seed = -1, .temp = (double)d.temperature, .top_k = d.top_k,
        .top_p = (double)d.top_p, .min_p = (double)d.min_p, .last_n = d.penalty_last_n,
        .repeat = (double)d.repeat_penalty, .k_type = "f16", .v_type = "f16",
    };
    const wn_arg table[] = {
        { 0, "Model and prompt", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
        { 'm', "model", WN_ARG_STRING, &o.model, "MODEL",
          "GGUF file, or the first part of a split one, or the name of a model (winnow models)", 0,
          0, 0 },
        { 'p', "prompt", WN_ARG_STRING, &o.prompt, "TEXT",
          "the prompt; after the text of -f when both are given", 0, 0, 0 },
        { 'f', "file", WN_ARG_STRING, &o.file, "FILE",
          "prompt from a file (- for standard input, also the default)", 0, 0, 0 },
        { 0, "tokens", WN_ARG_STRING, &o.tokens_file, "FILE",
          "prompt as int32 token ids (little-endian) instead of text", 0, 0, 0 },
        { 0, "chat", WN_ARG_FLAG, &o.chat, NULL,
          "the prompt is a user's message: put it into the model's chat form", 0, 0, 0 },
        { 0, "system", WN_ARG_STRING, &o.system, "TEXT", "with --chat: the system message", 0, 0,
          0 },
        { 0, "template", WN_ARG_STRING, &o.template, "FILE", WN_CLI_TEMPLATE_HELP, 0, 0, 0 },
        { 0, "parse-special", WN_ARG_FLAG, &o.parse_special, NULL,
          "special tokens spelled in the prompt are meant", 0, 0, 0 },
        { 0, "no-bos", WN_ARG_FLAG, &o.no_bos, NULL,
          "do not add the tokens the model asks for around a prompt", 0, 0, 0 },
        { 0, "Generation", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
        { 'n', "n-predict", WN_ARG_INT, &o.n_predict, "N",
          "tokens to generate (default -1: to the end token or the context)", -1, 1e9, "predict" },
        { 's', "seed", WN_ARG_INT, &o.seed, "N",
          "of the random numbers; -1: a new one, printed (default)", -1, 4294967295.0, 0 },
        { 0, "temp", WN_ARG_FLOAT, &o.temp, "X", "temperature; 0 is greedy (default 0.8)", 0, 100,
          0 },
        { 0, "top-k", WN_ARG_INT, &o.top_k, "N", "the N most likely tokens; 0: all (default 40)", 0,
          1e9, 0 },
        { 0, "top-p", WN_ARG_FLOAT, &o.top_p, "X",
          "the most likely tokens that sum to X (default 0.95)", 0, 1, 0 },
        { 0, "min-p", WN_ARG_FLOAT, &o.min_p, "X",
          "tokens at least X times as likely as the first (default 0.05)", 0, 1, 0 },
        { 0, "repeat-penalty", WN_ARG_FLOAT, &o.repeat, "X",
          "divides the logits of recent tokens; 1: off (default)", 1e-3, 100, 0 },
        { 0, "presence-penalty", WN_ARG_FLOAT, &o.presence, "X",
          "taken from the logits of recent tokens (default 0)", -100, 100, 0 },
        { 0, "frequency-penalty", WN_ARG_FLOAT, &o.frequency, "X",
          "the same, times how often each occurred (default 0)", -100, 100, 0 },
        { 0, "repeat-last-n", WN_ARG_INT, &o.last_n, "N",
          "how many tokens count as recent; -1: all (default 64)", -1, 1e9, 0 },
        { 0, "logit-bias", WN_ARG_STRING, &o.bias, "ID:X,..", "added to the logits of these tokens",
          0, 0, 0 },
        { 0, "ignore-eos", WN_ARG_FLAG, &o.ignore_eos, NULL, "go on after an end token", 0, 0, 0 },
        { 0, "Cache and memory", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
        { 'c', "ctx-size", WN_ARG_INT, &o.n_ctx, "N",
          "longest text, prompt and answer (default: what the model was trained for)", 0, 1e9, 0 },
        { 0, "mem", WN_ARG_BYTES, &o.mem, "SIZE",
          "ceiling for everything: weights, cache, scratch (default: 80 % of what is\navailable); "
          "6GiB, 900M",
          0, 0, 0 },
        { 0, "kv", WN_ARG_STRING, &o.kv, "POLICY",
          "what the cache keeps, e.g. 'snapkv@25%' (default none: everything);\nwinnow recipes "
          "lists what there is",
          0, 0, 0 },
        { 0, "protect", WN_ARG_LIST, &o.protect, "RANGE",
          "bytes FROM-TO of the prompt (the first is 0) that stay in the cache whatever "
          "the\npolicy; may be given many times",
          0, 0, 0 },
        { 0, "span", WN_ARG_LIST, &o.span, "RANGE",
          "bytes FROM-TO of the prompt are one span, an example or an instruction, for policies "
          "that\nlook at spans; may be given many times; without it messages and paragraphs are",
          0, 0, 0 },
        { 0, "profile", WN_ARG_STRING, &o.profile, "FILE", WN_CLI_PROFILE_HELP, 0, 0, 0 },
        { 0, "calibration", WN_ARG_STRING, &o.calibration, "FILE", WN_CLI_CALIBRATION_HELP, 0, 0,
          0 },
        { 0, "policy-lib", WN_ARG_STRING, &o.lib, "FILE", WN_CLI_POLICY_LIB_HELP, 0, 0, 0 },
        { 0, "cache-type-k", WN_ARG_STRING, &o.k_type, "TYPE", WN_CLI_TYPE_K_HELP, 0, 0, "-ctk" },
        { 0, "cache-type-v", WN_ARG_STRING, &o.v_type, "TYPE", WN_CLI_TYPE_V_HELP, 0, 0, "-ctv" },
        { 0, "page-slots", WN_ARG_INT, &o.page_slots, "N",
          "slots of a page: 4 to 64, a power of two (default 64)", 0, 64, 0 },
        { 0, "session", WN_ARG_STRING, &o.session, "FILE",
          "continue from this file where the prompt agrees with it, and save to it", 0, 0, 0 },
        { 0, "session-read-only", WN_ARG_FLAG, &o.session_ro, NULL, "do not write the session file",
          0, 0, 0 },
        { 0, "Machine", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
        { 't', "threads", WN_ARG_INT, &o.threads, "N",
          "threads (default: all processors); changes no output", 0, 256, 0 },
        { 'b', "batch-size", WN_ARG_INT, &o.batch, "N",
          "rows of one pass (default 512); changes no output", 0, 4096, 0 },
        { 0, "ubatch-size", WN_ARG_INT, &o.batch, "N", "the same", 0, 4096, "-ub" },
        { 0, "no-repack", WN_ARG_FLAG, &o.no_repack, NULL,
          "leave quantised weights mapped: loads at once, runs slower, same output", 0, 0, 0 },
        { 0, "Output", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
        { 0, "json", WN_ARG_FLAG, &o.json, NULL, "one JSON line at the end instead of text", 0, 0,
          0 },
        { 0, "echo", WN_ARG_FLAG, &o.echo, NULL, "print the text of -p first", 0, 0, 0 },
        { 0, "special", WN_ARG_FLAG, &o.special, NULL, "show special tokens", 0, 0, 0 },
        { 'q', "quiet", WN_ARG_FLAG, &o.quiet, NULL, "no timings, no progress", 0, 0, 0 },
        { 0, "trace", WN_ARG_STRING, &o.trace, "FILE",
          "write what the policy saw and decided, for winnow replay", 0, 0, 0 },
        { 0, "trace-rows", WN_ARG_FLAG, &o.trace_rows, NULL,
          "with keys, values and queries, for replays of any policy (large)", 0, 0, 0 },
        { 0, "explain", WN_ARG_STRING, &o.explain, "RANGE",
          "say what became of positions FROM-TO, or of a text in the prompt", 0, 0, 0 },
        { 0, "dump-logits", WN_ARG_STRING, &o.dump, "FILE",
          "float32 logits of every position computed, (tokens, vocabulary)", 0, 0, 0 },
    };
    const char *rest[1];
    int n_rest;
    bool help;
    int rc = wn_args_parse(table, (int)WN_COUNT(table), argc, argv, rest, 1, &n_rest, &help);
    if (rc) return rc;
    if (help) {
        wn_help(&wn_cli_run_page, table, (int)WN_COUNT(table));
        return WN_EXIT_OK;
    }
    if (n_rest && !o.model) o.model = rest[0];
    else if (n_rest) {
        fprintf(stderr, "winnow run: \"%.60s\" is not an option; the prompt is given with -p\n",
                rest[0]);
        return WN_EXIT_USAGE;
    }
    return (rc = check(&o)) ? rc : run(&o);
}
