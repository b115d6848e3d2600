/* cli/run_report.c - what is said of a `winnow run`: see run.h. Progress is one line that is
 * written over; figures go to stderr, or with --json to stdout as the last line.
 */
#include "cli/cli.h"
#include "cli/long.h"
#include "cli/run.h"

#include <jansson.h>
#include <stdlib.h>

/* ---- progress ------------------------------------------------------------------- */

void wn_run_show_reading(double done, double total, double seconds)
{
    double rate = seconds > 0 ? done / seconds : 0;
    double eta = rate > 0 ? (total - done) / rate : 0;
    int bar = total > 0 ? (int)(20 * done / total) : 0;
    fprintf(stderr, "\rreading [%.*s%.*s] %3.0f %%  %.0f/%.0f tokens  %.1f tok/s  %.0f s left ",
            bar, "####################", 20 - bar, "....................",
            total > 0 ? 100 * done / total : 100, done, total, rate, eta);
    fflush(stderr);
}

void wn_run_clear_progress(void) { fputs("\r\033[K", stderr); }

void wn_run_on_load(void *ctx, double done)
{
    double start = *(double *)ctx;
    if (wn_cli_now() - start < 0.5) return;
    fprintf(stderr, "\rrepacking weights %3.0f %% ", 100 * done);
    if (done >= 1) wn_run_clear_progress();
}

/* ---- reports ---------------------------------------------------------------------- */

void wn_run_report(const wn_run *r)
{
    wn_seq_stats s;
    wn_engine_info ei;
    char b1[32], b2[32], b3[32], b4[32];
    size_t computed = r->n_ids - r->cached;
    wn_seq_get_stats(r->s, &s);
    wn_engine_get_info(r->e, &ei);
    fprintf(stderr, "\nload     %.2f s   (weights %s, cache pool %s, scratch %s, numerics %s)\n",
            r->load_s, wn_args_size((double)ei.weights, b1), wn_args_size((double)ei.pool, b2),
            wn_args_size((double)ei.scratch, b3), ei.numerics);
    fprintf(stderr, "prompt   %zu tokens, %zu from the session, %.2f s, %.1f tokens/s\n",
            r->n_ids, r->cached, r->prefill_s,
            r->prefill_s > 0 ? (double)computed / r->prefill_s : 0);
    fprintf(stderr, "answer   %zu tokens, %.2f s, %.1f tokens/s (stopped: %s)\n", r->generated,
            r->decode_s, r->decode_s > 0 ? (double)r->generated / r->decode_s : 0, r->stop);
    fprintf(stderr, "cache    %s in use, %s at most, %llu slots of %llu a full cache holds\n",
            wn_args_size((double)s.kv_bytes, b1), wn_args_size((double)s.kv_bytes_peak, b4),
            (unsigned long long)s.kv_slots, (unsigned long long)s.kv_slots_full);
}

int wn_run_report_json(const wn_run *r)
{
    wn_seq_stats s;
    wn_seq_get_stats(r->s, &s);
    size_t computed = r->n_ids - r->cached;
    json_t *text = json_stringn(r->out ? r->out : "", r->out_len);
    json_t *j = json_pack("{s:o?, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:I, s:s, s:I, s:f}",
                          "text", text, "prompt_tokens", (json_int_t)r->n_ids, "generated",
                          (json_int_t)r->generated, "cached_tokens", (json_int_t)r->cached,
                          "prefill_tps", r->prefill_s > 0 ? (double)computed / r->prefill_s : 0.0,
                          "decode_tps", r->decode_s > 0 ? (double)r->generated / r->decode_s : 0.0,
                          "kv_bytes", (json_int_t)s.kv_bytes, "kv_bytes_peak",
                          (json_int_t)s.kv_bytes_peak, "kv_slots", (json_int_t)s.kv_slots,
                          "kv_slots_full", (json_int_t)s.kv_slots_full, "stop", r->stop, "seed",
                          (json_int_t)r->seed, "load_s", r->load_s);
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
