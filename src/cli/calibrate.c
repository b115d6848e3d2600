/* cli/calibrate.c - `winnow calibrate`: books for cache formats that are fitted to a model.
 *
 * Reads a text once, fits, and writes the file beside the model that kv=cq2 and the like go by
 * (docs/calibration.md). What the formats lose on the text goes to stdout, progress to stderr.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/io.h"
#include "cli/long.h"
#include "cli/models.h"

#include "base/alloc.h"
#include "eval/calibrate.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const char *model, *output, *text, *formats;
    long context, texts, seed, threads;
    size_t mem;
    bool quiet;
} options;

static int wrong(const char *what)
{
    fprintf(stderr, "winnow calibrate: %s\n", what);
    return WN_EXIT_USAGE;
}

/* Losses of all lanes, by format. */
typedef struct {
    const wn_format *f;
    double sum[2], most[2];
    int n[2];
} losses;

typedef struct { losses of[WN_CALIBRATED_MAX]; int n; } table;

static void on_fitted(void *ctx, const wn_format *f, int lane, bool of_v, double loss)
{
    table *t = ctx;
    int i = 0;
    (void)lane;
    while (i < t->n && t->of[i].f != f) i++;
    if (i == t->n) t->of[t->n++].f = f;
    losses *l = &t->of[i];
    l->sum[of_v] += loss;
    l->most[of_v] = WN_MAX(l->most[of_v], loss);
    l->n[of_v]++;
}

static void print_losses(const table *t)
{
    printf("format    loss of K, mean  worst lane   of V, mean  worst lane\n");
    for (int i = 0; i < t->n; i++) {
        const losses *l = &t->of[i];
        printf("%-8s %16.4f %11.4f %12.4f %11.4f\n", l->f->name, l->sum[0] / WN_MAX(l->n[0], 1),
               l->most[0], l->sum[1] / WN_MAX(l->n[1], 1), l->most[1]);
    }
}

static int run(const options *o)
{
    char beside[4096], *text = NULL;
    wn_cli_progress p = { .show = !o->quiet && isatty(2) };
    table t = { 0 };
    wn_calibration *c = NULL, *again = NULL;
    wn_model *m = NULL;
    wn_err err = { 0 };
    size_t n = 0;
    wn_status st = wn_cli_read_all(o->text, &text, &n, &err);
    if (st || (st = wn_cli_open_model(&m, o->model,
                                      &(wn_model_opts){ .n_threads = (int)o->threads }, &err)))
        goto done;
    wn_engine_calibration_path(m, beside, sizeof beside);
    const char *path = o->output ? o->output : beside;
    wn_calibrate_opts co = { .text = text, .n_text = n, .context = (int)o->context,
                             .n_texts = (int)o->texts, .formats = o->formats,
                             .seed = (uint64_t)o->seed, .n_threads = (int)o->threads, .mem = o->mem,
                             .progress = wn_cli_on_progress, .progress_ctx = &p,
                             .stop = wn_cli_catch_interrupt(), .fitted = on_fitted,
                             .fitted_ctx = &t };
    if ((st = wn_calibrate(&c, m, &co, &err)) || (st = wn_calibration_write(c, path, &err)) ||
        (st = wn_calibration_read(&again, path, &err))) goto done;
    print_losses(&t);
    printf("\n%s: %d tokens in texts of %d, %d lanes, %zu KiB in memory, checksum %s\n", path,
           again->n_tokens, again->context, again->n_lanes, again->bytes >> 10, again->id);
done:
    if (st) fprintf(stderr, "winnow calibrate: %s\n", err.text);
    wn_calibration_close(c);
    wn_calibration_close(again);
    wn_model_close(m);
    wn_free(text);
    return st ? WN_EXIT_FAILED : WN_EXIT_OK;
}

const wn_help_page wn_cli_calibrate_page = {
    .command = "calibrate",
    .summary = "fit cache formats of few bits to a model",
    .usage = "MODEL --text FILE [options]",
    .about = "Reads a text with the model and writes MODEL.calibration, which the cache formats "
             "cq4, cq2, cq1, nuq4,\n"
             "nuq3 and nuq2 (the last three also with -s1) go by. docs/calibration.md says what is "
             "in it.",
    .examples = "winnow calibrate models/winnow-demo.gguf --text prose.txt\n"
                "winnow run -m models/winnow-demo.gguf --kv none,kv=cq2",
};

int wn_cli_calibrate(int argc, char **argv)
{
    options o = { 0 };
    const wn_arg args[] = {
        { 0, "What is read", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
        { 'm', "model", WN_ARG_STRING, &o.model, "FILE", "GGUF file", 0, 0, 0 },
        { 0, "text", WN_ARG_STRING, &o.text, "FILE",
          "text like what the model will read; 16000 tokens are enough (-: standard input)", 0, 0,
          0 },
        { 'c', "context", WN_ARG_INT, &o.context, "N",
          "tokens of a text (default 2048, or what the model was trained for)", 64, 1e6,
          "ctx-size" },
        { 0, "texts", WN_ARG_INT, &o.texts, "N", "texts at most (default 8)", 1, 10000, 0 },
        { 0, "What is written", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
        { 'o', "output", WN_ARG_STRING, &o.output, "FILE",
          "calibration to write (default: the model's path and .calibration)", 0, 0, 0 },
        { 0, "formats", WN_ARG_STRING, &o.formats, "LIST",
          "formats to fit, as in cq2,cq1 (default: all)", 0, 0, 0 },
        { 's', "seed", WN_ARG_INT, &o.seed, "N", "other first points (default 0)", 0, 4294967295.0,
          0 },
        { 0, "Running", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
        { 't', "threads", WN_ARG_INT, &o.threads, "N",
          "threads (default: all processors); changes no number", 0, 256, 0 },
        { 0, "mem", WN_ARG_BYTES, &o.mem, "SIZE", "ceiling for weights, caches, scratch", 0, 0, 0 },
        { 'q', "quiet", WN_ARG_FLAG, &o.quiet, NULL, "no progress", 0, 0, 0 },
    };
    const char *word;
    int rc;
    if (!wn_cli_parse(&wn_cli_calibrate_page, args, (int)WN_COUNT(args), argc, argv, &word, &rc))
        return rc;
    if (word && !o.model) o.model = word;
    if (!o.model) return wrong("which model? give a GGUF file");
    if (!o.text) return wrong("which text? give a file with --text");
    return run(&o);
}
