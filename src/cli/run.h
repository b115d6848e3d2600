/* cli/run.h - one `winnow run`, for the files that make it:
 *
 *     run_options.c   what the command line means
 *     run_prompt.c    what is read: the prompt's tokens, and what of them a session holds
 *     run_open.c      what works: engine, sequence, sampler, what watches the policy
 *     run.c           the loop: feed, step, sample, print
 *     run_report.c    what is said of it, while it runs and after
 *
 * Functions fill in what is theirs of the run; run.c closes all of it. On failure err says what
 * and where.
 */
#ifndef WN_CLI_RUN_H
#define WN_CLI_RUN_H

#include "cli/args.h"
#include "cli/ranges.h"
#include "eval/watch.h"

#include <stdio.h>

enum { WN_RUN_RANGES = 64 };            /* of --protect, and of --span */

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
} wn_run_options;

typedef struct {
    const wn_run_options *o;
    bool show;                          /* progress: stderr is a terminal, nobody wants quiet */
    wn_model *m;
    wn_engine *e;
    wn_seq *s;
    wn_sampler *sampler;
    wn_text *text;
    wn_watch *watch;
    FILE *dump;
    bool dump_failed;
    size_t n_vocab;
    uint64_t seed;
    int32_t *ids; size_t n_ids;         /* the prompt */
    wn_cli_span kept[WN_RUN_RANGES], spans[WN_RUN_RANGES];      /* of --protect and --span */
    long limit;                         /* tokens to generate at most */
    char *out;                          /* what was generated, for --json */
    size_t out_len, out_cap;
    /* what the last line reports */
    size_t generated, cached;           /* cached: of the prompt, from the session */
    double load_s, prefill_s, decode_s;
    const char *stop;
} wn_run;

/* False: that was all, or something is wrong and was said; *rc is the exit status. */
bool wn_run_parse(int argc, char **argv, const wn_run_options **o, int *rc);

/* The prompt as tokens: from --tokens, or the text of -f, -p and stdin in that order, of which
 * those at the bytes of --protect and --span are noted. */
wn_status wn_run_read_prompt(wn_run *r, wn_err *err);
/* Loads the session file, if there is one, and keeps what it shares with the prompt. */
wn_status wn_run_resume(wn_run *r, wn_err *err);
/* Tells the sequence what --protect and --span named. */
wn_status wn_run_name_ranges(wn_run *r, wn_err *err);

/* start: when the run began, for progress. */
wn_status wn_run_open_model(wn_run *r, double *start, wn_err *err);
/* The engine and the sequence for the prompt, and the file of --dump-logits. */
wn_status wn_run_open_engine(wn_run *r, wn_err *err);
wn_status wn_run_open_sampler(wn_run *r, wn_err *err);
/* --trace and --explain; closing says what became of the positions. */
wn_status wn_run_watch(wn_run *r, wn_err *err);
wn_status wn_run_stop_watching(wn_run *r, wn_err *err);

void wn_run_on_load(void *ctx, double done);            /* ctx: when it began, a double */
void wn_run_show_reading(double done, double total, double seconds);
void wn_run_clear_progress(void);
void wn_run_report(const wn_run *r);
int wn_run_report_json(const wn_run *r);                /* the exit status */

#endif
