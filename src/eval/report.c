/* eval/report.c - see report.h. Numbers are printed with enough digits to tell rows apart
 * and few enough to read; JSON has them in full. */
#include "eval/report.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

static const char *const mode_names[WN_ASK_MODES] = { "agnostic", "aware" };

static bool measured(const wn_eval_report *r) { return r->n_chunks > 0; }

/* Over the modes asked for, with equal weight. */
static wn_eval_mean both(const wn_eval_mean m[WN_ASK_MODES], const bool ask[WN_ASK_MODES])
{
    wn_eval_mean out = { 0 };
    int k = 0;
    double var = 0;
    for (int i = 0; i < WN_ASK_MODES; i++) {
        if (!ask[i]) continue;
        out.mean += m[i].mean;
        out.n += m[i].n;
        var += m[i].se * m[i].se;
        k++;
    }
    if (k) out.mean /= k, out.se = sqrt(var) / k;
    return out;
}

/* ---- JSON ----------------------------------------------------------------------------- */

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static void put(json_t *o, const char *key, double x, bool there)
{
    json_object_set_new(o, key, there ? number(x) : json_null());
}

/* Every case: where its fact lay, and what it scored. */
static json_t *cells(const wn_eval_cell *c, int n, const bool ask[WN_ASK_MODES])
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        json_t *o = json_pack("{s:i}", "length", c[i].length);
        json_object_set_new(o, "depth", number(c[i].depth));
        for (int m = 0; m < WN_ASK_MODES; m++)
            if (ask[m]) json_object_set_new(o, mode_names[m], json_real(c[i].score[m]));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *score(const wn_eval_mean m[WN_ASK_MODES], const bool ask[WN_ASK_MODES])
{
    wn_eval_mean all = both(m, ask);
    json_t *o = json_pack("{s:f, s:f, s:i}", "accuracy", all.mean, "se", all.se, "n", all.n);
    for (int i = 0; i < WN_ASK_MODES; i++)
        if (ask[i])
            json_object_set_new(o, mode_names[i],
                                json_pack("{s:f, s:f}", "accuracy", m[i].mean, "se", m[i].se));
    return o;
}

static json_t *row_json(const wn_eval_report *r, const wn_eval_result *x,
                        const bool ask[WN_ASK_MODES])
{
    bool text = measured(r);
    json_t *o = json_pack("{s:s, s:s}", "kv", x->kv, "canonical", x->canonical);
    put(o, "budget", x->budget, x->budget > 0);
    json_object_set_new(o, "shares_prefix", json_boolean(x->shares_prefix));
    put(o, "kl_mean", x->kl_mean, text);
    put(o, "kl_p95", x->kl_p95, text);
    put(o, "kl_p99", x->kl_p99, text);
    put(o, "top1", x->top1, text);
    put(o, "ppl", x->ppl, text);
    put(o, "ppl_full", x->ppl_full, text);
    put(o, "diverge_at", x->diverge_at, text);
    put(o, "bytes", x->bytes, text);
    put(o, "bytes_share", x->bytes_share, text);
    put(o, "prefill_tps", x->prefill_tps, true);
    put(o, "decode_tps", x->decode_tps, true);
    if (text) {
        json_t *layers = json_array();
        for (int l = 0; l < r->n_layers; l++)
            json_array_append_new(layers, json_pack("{s:f, s:f, s:f}", "mass", x->mass[l], "error",
                                                    x->error[l], "recovered", x->recovered[l]));
        json_object_set_new(o, "layers", layers);
    }
    for (int t = 0; t < r->n_tasks; t++) {
        json_t *task = score(x->tasks[t], ask);
        json_object_set_new(task, "cases", cells(x->cells + t * r->n_cells, r->n_cells, ask));
        json_object_set_new(o, r->task_names[t], task);
    }
    if (x->choices[0].n) json_object_set_new(o, "choices", score(x->choices, ask));
    return o;
}

bool wn_eval_write_json(FILE *f, const wn_eval_report *r, const bool ask[WN_ASK_MODES])
{
    json_t *rows = json_array(), *unranked = json_array();
    for (int i = 0; i < r->n_rows; i++) json_array_append_new(rows, row_json(r, &r->rows[i], ask));
    for (int t = 0; t < r->n_tasks; t++)
        for (int m = 0; m < WN_ASK_MODES; m++)
            if (ask[m] && !wn_eval_ranks(r, t, m))
                json_array_append_new(unranked,
                                      json_sprintf("%s:%s", r->task_names[t], mode_names[m]));
    json_t *o = json_pack("{s:s, s:i}", "model", r->model, "context", r->context);
    put(o, "usable_context", r->usable_context, r->usable_context >= 0);
    put(o, "attended_tokens", r->attended, measured(r));
    json_object_set_new(o, "chunks", json_integer(r->n_chunks));
    json_object_set_new(o, "scored_tokens", json_integer(r->n_scored));
    json_object_set_new(o, "diverge_max", json_integer(r->diverge_max));
    json_object_set_new(o, "unranked", unranked);
    json_object_set_new(o, "rows", rows);
    bool ok = o && !json_dumpf(o, f, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) &&
              fputc('\n', f) != EOF;
    json_decref(o);
    return ok;
}

/* ---- CSV ------------------------------------------------------------------------------- */

static void cell(FILE *f, double x, bool there)
{
    if (there && isfinite(x)) fprintf(f, ",%.9g", x);
    else fputc(',', f);
}

bool wn_eval_write_csv(FILE *f, const wn_eval_report *r, const bool ask[WN_ASK_MODES])
{
    bool text = measured(r);
    fputs(
        "kv,budget,kl_mean,kl_p95,kl_p99,top1,ppl,ppl_full,diverge_at,bytes,prefill_tps,decode_tps",
        f);
    for (int t = 0; t < r->n_tasks; t++)
        for (int m = 0; m < WN_ASK_MODES; m++)
            if (ask[m])
                fprintf(f, ",%s_%s,%s_%s_se", r->task_names[t], mode_names[m], r->task_names[t],
                        mode_names[m]);
    fputc('\n', f);
    for (int i = 0; i < r->n_rows; i++) {
        const wn_eval_result *x = &r->rows[i];
        fprintf(f, "\"%s\"", x->kv);
        cell(f, x->budget, x->budget > 0);
        const double v[] = { x->kl_mean, x->kl_p95,   x->kl_p99,     x->top1,
                             x->ppl,     x->ppl_full, x->diverge_at, x->bytes };
        for (size_t k = 0; k < WN_COUNT(v); k++) cell(f, v[k], text);
        cell(f, x->prefill_tps, true);
        cell(f, x->decode_tps, true);
        for (int t = 0; t < r->n_tasks; t++)
            for (int m = 0; m < WN_ASK_MODES; m++)
                if (ask[m]) {
                    cell(f, x->tasks[t][m].mean, true);
                    cell(f, x->tasks[t][m].se, true);
                }
        fputc('\n', f);
    }
    return !ferror(f);
}

/* ---- a table for people ---------------------------------------------------------------------- */

double wn_eval_layers_mean(const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return n ? sum / n : 0;
}

static int widest_name(const wn_eval_report *r)
{
    int w = 6;
    for (int i = 0; i < r->n_rows; i++) {
        char b[16] = "";
        if (r->rows[i].budget > 0) snprintf(b, sizeof b, "@%.4g%%", r->rows[i].budget * 100);
        w = WN_MAX(w,
                   (int)(strlen(r->rows[i].kv) + strlen(b)) + (r->rows[i].shares_prefix ? 2 : 0));
    }
    return WN_MIN(w, 60);
}

static void put_name(FILE *f, const wn_eval_result *x, int width)
{
    char name[WN_SPEC_BYTES + 24], b[16] = "";
    if (x->budget > 0) snprintf(b, sizeof b, "@%.4g%%", x->budget * 100);
    snprintf(name, sizeof name, "%s%s%s", x->kv, b, x->shares_prefix ? " *" : "");
    fprintf(f, "%-*s", width, name);
}

static void text_table(FILE *f, const wn_eval_report *r, int width)
{
    fprintf(f, "%-*s  %7s %6s %9s %8s %8s %6s %8s %8s %6s %6s %6s %9s %8s\n", width, "policy",
            "KiB", "of", "KL mean", "p95", "p99", "top-1", "ppl", "+ppl", "same", "mass", "error",
            "prefill/s", "decode/s");
    for (int i = 0; i < r->n_rows; i++) {
        const wn_eval_result *x = &r->rows[i];
        put_name(f, x, width);
        fprintf(f, "  %7.0f %5.1f%% %9.5f %8.4f %8.4f %5.1f%% %8.3f %+8.3f %6.1f %5.1f%% %6.3f",
                x->bytes / 1024, 100 * x->bytes_share, x->kl_mean, x->kl_p95, x->kl_p99,
                100 * x->top1, x->ppl, x->ppl - x->ppl_full, x->diverge_at,
                100 * wn_eval_layers_mean(x->mass, r->n_layers),
                wn_eval_layers_mean(x->error, r->n_layers));
        if (isfinite(x->prefill_tps)) fprintf(f, " %9.0f %8.1f", x->prefill_tps, x->decode_tps);
        fputc('\n', f);
    }
}

static void task_table(FILE *f, const wn_eval_report *r, int mode, int width)
{
    fprintf(f, "\n%-*s", width,
            mode == WN_ASK_AWARE ? "asked before compression" : "asked after compression");
    for (int t = 0; t < r->n_tasks; t++) fprintf(f, " %12.12s", r->task_names[t]);
    fputc('\n', f);
    for (int i = 0; i < r->n_rows; i++) {
        put_name(f, &r->rows[i], width);
        for (int t = 0; t < r->n_tasks; t++) {
            wn_eval_mean m = r->rows[i].tasks[t][mode];
            if (i && !wn_eval_ranks(r, t, mode)) fprintf(f, " %12s", "(-)");
            else fprintf(f, "  %4.0f%% +- %2.0f", 100 * m.mean, 100 * m.se);
        }
        fputc('\n', f);
    }
}

bool wn_eval_write_table(FILE *f, const wn_eval_report *r, const bool ask[WN_ASK_MODES])
{
    int width = widest_name(r);
    bool shared = false;
    fprintf(f, "%s, context %d tokens", r->model, r->context);
    if (r->usable_context >= 0) fprintf(f, ", usable context %d", r->usable_context);
    if (measured(r))
        fprintf(f, "; %d chunks of text, %d positions compared; a query attends to %.1f tokens",
                r->n_chunks, r->n_scored, r->attended);
    fputs("\n\n", f);
    if (measured(r)) text_table(f, r, width);
    for (int m = 0; m < WN_ASK_MODES && r->n_tasks; m++)
        if (ask[m]) task_table(f, r, m, width);
    if (r->rows[0].choices[0].n || r->rows[0].choices[1].n) {
        fprintf(f, "\n%-*s %s\n", width, "multiple choice", "agnostic, aware");
        for (int i = 0; i < r->n_rows; i++) {
            put_name(f, &r->rows[i], width);
            for (int m = 0; m < WN_ASK_MODES; m++)
                if (ask[m])
                    fprintf(f, "  %4.0f%% +- %2.0f", 100 * r->rows[i].choices[m].mean,
                            100 * r->rows[i].choices[m].se);
            fputc('\n', f);
        }
    }
    for (int i = 0; i < r->n_rows; i++) shared |= r->rows[i].shares_prefix;
    if (shared)
        fputs("\n* decides at marks only: shares one reading of what precedes the mark with the "
              "full cache\n",
              f);
    return !ferror(f);
}
