/* cli/run.c - `winnow run`: a prompt in, text out.
 *
 * The command is a loop over the public interface: feed the prompt, step until its logits
 * are there (with progress on a terminal), then sample, print, feed, step. With --session
 * the part of the prompt that the file already holds is not computed again. Text goes to
 * stdout as it comes, everything else to stderr; --json prints one line last, on stdout.
 * run.h says which file does what.
 */
#include "cli/run.h"
#include "cli/cli.h"
#include "cli/long.h"

#include "base/alloc.h"
#include "base/os.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;
static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

/* ---- the prompt ------------------------------------------------------------------------- */

static wn_status prefill(wn_run *r, wn_err *err)
{
    double start = wn_cli_now(), last = start;
    int rows;
    do {
        wn_status st = wn_engine_step(r->e, &rows, err);
        if (st) return st;
        double t = wn_cli_now();
        if (r->show && t - start > 0.7 && t - last > 0.1) {
            last = t;
            wn_run_show_reading((double)wn_seq_n_done(r->s) - (double)r->cached,
                                (double)(r->n_ids - r->cached), t - start);
        }
    } while (rows > 0 && !interrupted);
    if (r->show && last > start) wn_run_clear_progress();
    return WN_OK;
}

static wn_status read_all(wn_run *r, wn_err *err)
{
    double start = wn_cli_now();
    size_t have = (size_t)wn_seq_n_tokens(r->s);
    wn_status st = wn_seq_feed(r->s, r->ids + have, r->n_ids - have, err);
    if (st || (st = wn_seq_mark(r->s, err)) || (st = prefill(r, err))) return st;
    r->prefill_s = wn_cli_now() - start;
    return WN_OK;
}

/* ---- the answer -------------------------------------------------------------------------- */

static bool emit(wn_run *r, const char *s, size_t n)
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

static wn_status generate(wn_run *r, wn_err *err)
{
    wn_status st;
    r->stop = "length";
    while ((long)r->generated < r->limit && !interrupted) {
        int32_t id;
        size_t k;
        const float *logits = wn_seq_logits(r->s);
        if ((st = wn_sampler_pick(r->sampler, logits, wn_seq_tokens(r->s), wn_seq_n_tokens(r->s),
                                  &id, err)))
            return st;
        if (wn_model_is_end(r->m, id) && !r->o->ignore_eos) {
            r->stop = "end";
            break;
        }
        r->generated++;
        const char *s = wn_text_push(r->text, id, &k);
        if (!emit(r, s, k))
            return wn_fail(err, WN_EIO, "the output cannot be written: %s", strerror(errno));
        if ((st = wn_seq_feed(r->s, &id, 1, err))) return st;
        /* nobody will ask for the next logits */
        if ((long)r->generated == r->limit && !r->o->session) break;
        if ((st = wn_engine_step(r->e, NULL, err))) return st;
    }
    if (interrupted) r->stop = "interrupted";
    size_t k;
    const char *s = wn_text_end(r->text, &k);
    emit(r, s, k);
    return WN_OK;
}

static wn_status answer(wn_run *r, wn_err *err)
{
    const wn_run_options *o = r->o;
    double start = wn_cli_now();
    wn_status st;
    if (o->echo && o->prompt && !o->json) fputs(o->prompt, stdout);
    if (!interrupted && (st = generate(r, err))) return st;
    r->decode_s = wn_cli_now() - start;
    if (!o->json && r->generated) putchar('\n');
    return WN_OK;
}

/* ---- the run ------------------------------------------------------------------------------ */

static wn_status open_all(wn_run *r, wn_err *err)
{
    double start = wn_cli_now();
    wn_status st = wn_run_open_model(r, &start, err);
    if (st || (st = wn_run_read_prompt(r, err)) || (st = wn_run_open_engine(r, err)) ||
        (st = wn_run_open_sampler(r, err)) ||
        (st = wn_text_open(&r->text, r->m, r->o->special ? WN_SHOW_SPECIAL : 0, err)) ||
        (st = wn_run_resume(r, err)) || (st = wn_run_name_ranges(r, err)) ||
        (st = wn_run_watch(r, err)))
        return st;
    r->load_s = wn_cli_now() - start;
    return WN_OK;
}

/* The files of --session and --dump-logits. */
static wn_status save(wn_run *r, wn_err *err)
{
    const wn_run_options *o = r->o;
    wn_status st;
    if (o->session && !o->session_ro && (st = wn_seq_save(r->s, o->session, err))) return st;
    FILE *dump = r->dump;
    r->dump = NULL;
    if (dump && (fclose(dump) || r->dump_failed))
        return wn_fail(err, WN_EIO, "%s: could not be written whole", o->dump);
    return WN_OK;
}

static wn_status run(wn_run *r, wn_err *err)
{
    wn_status st = open_all(r, err);
    if (st) return st;
    signal(SIGINT, on_interrupt);
    if ((st = read_all(r, err)) || (st = answer(r, err)) || (st = save(r, err))) return st;
    if (!r->o->quiet) wn_run_report(r);
    if ((st = wn_run_stop_watching(r, err))) return st;
    if (!r->o->quiet && r->o->temp > 0 && r->generated)
        fprintf(stderr, "seed     %llu\n", (unsigned long long)r->seed);
    return WN_OK;
}

static void close_all(wn_run *r)
{
    if (r->dump) fclose(r->dump);
    wn_tokens_free(r->ids);
    wn_text_close(r->text);
    wn_sampler_close(r->sampler);
    wn_watch_close(r->watch, NULL);
    wn_seq_close(r->s);
    wn_engine_close(r->e);
    wn_model_close(r->m);
    wn_free(r->out);
}

int wn_cli_run(int argc, char **argv)
{
    wn_run r = { .stop = "length", .show = isatty(STDERR_FILENO) };
    wn_err err;
    int rc;
    if (!wn_run_parse(argc, argv, &r.o, &rc)) return rc;
    r.show = r.show && !r.o->quiet;
    r.seed = r.o->seed >= 0 ? (uint64_t)r.o->seed
                            : (uint64_t)wn_os_now_us() * 2654435761u % 4294967296u;
    if (run(&r, &err)) {
        fprintf(stderr, "winnow run: %s\n", err.text);
        rc = WN_EXIT_FAILED;
    } else if (r.o->json) rc = wn_run_report_json(&r);
    close_all(&r);
    return rc;
}
