/* eval/report_markdown.c - a report as tables for documents: one of distributions, one of tasks,
 * where a cell has both ways of asking, after compression and before it. */
#include "eval/report.h"

#include <math.h>
#include <string.h>

static void name(FILE *f, const wn_eval_result *x)
{
    fprintf(f, "| `%s`", x->kv);
    if (x->budget > 0) fprintf(f, " %.4g %%", x->budget * 100);
    fputs(" |", f);
}

static void text_table(FILE *f, const wn_eval_report *r)
{
    fputs("| policy | bytes | KL mean | KL p99 | top-1 | ppl | same | mass | error |\n"
          "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n", f);
    for (int i = 0; i < r->n_rows; i++) {
        const wn_eval_result *x = &r->rows[i];
        name(f, x);
        fprintf(f, " %.0f %% | %.4f | %.3f | %.1f %% | %+.2f | %.0f | %.0f %% | %.3f |\n",
                100 * x->bytes_share, x->kl_mean, x->kl_p99, 100 * x->top1, x->ppl - x->ppl_full,
                x->diverge_at, 100 * wn_eval_layers_mean(x->mass, r->n_layers),
                wn_eval_layers_mean(x->error, r->n_layers));
    }
    fprintf(f,
            "\n*bytes* of the full cache right after the mark; *KL* in nats per token; *ppl* the "
            "difference to the full "
            "cache's %.2f; *same*\ntokens of the greedy continuation, at most %d; *mass* of "
            "attention kept and *error* of "
            "attention outputs, mean over layers.\n",
            r->rows[0].ppl_full, r->diverge_max);
}

/* A task's cell: the modes that were asked, in parentheses where nobody is ranked. */
static void cell(FILE *f, const wn_eval_report *r, const wn_eval_mean m[WN_ASK_MODES], int task,
                 const bool ask[WN_ASK_MODES])
{
    bool ranks = true, first = true;
    for (int i = 0; i < WN_ASK_MODES; i++)
        if (ask[i] && task >= 0) ranks &= wn_eval_ranks(r, task, i);
    fputs(ranks ? " " : " (", f);
    for (int i = 0; i < WN_ASK_MODES; i++)
        if (ask[i]) fprintf(f, "%s%.0f", first ? "" : " / ", 100 * m[i].mean), first = false;
    fputs(ranks ? " |" : ") |", f);
}

static void task_table(FILE *f, const wn_eval_report *r, const bool ask[WN_ASK_MODES])
{
    int n_choices = r->rows[0].choices[0].n;
    fputs("\n| policy |", f);
    for (int t = 0; t < r->n_tasks; t++) fprintf(f, " %s |", r->task_names[t]);
    fprintf(f, "%s\n| --- |", n_choices ? " choices |" : "");
    for (int t = 0; t < r->n_tasks + (n_choices > 0); t++) fputs(" ---: |", f);
    fputc('\n', f);
    for (int i = 0; i < r->n_rows; i++) {
        name(f, &r->rows[i]);
        for (int t = 0; t < r->n_tasks; t++) cell(f, r, r->rows[i].tasks[t], t, ask);
        if (n_choices) cell(f, r, r->rows[i].choices, -1, ask);
        fputc('\n', f);
    }
    fprintf(f,
            "\nPer cent, questions asked %s%s%s compression; %d cases of a task; in parentheses "
            "where the full cache itself is "
            "below 60 %%.\n",
            ask[WN_ASK_AGNOSTIC] ? "after" : "",
            ask[WN_ASK_AGNOSTIC] && ask[WN_ASK_AWARE] ? " / before" : "",
            ask[WN_ASK_AGNOSTIC] ? "" : "before", r->n_cells);
}

bool wn_eval_write_markdown(FILE *f, const wn_eval_report *r, const bool ask[WN_ASK_MODES])
{
    fprintf(f, "%s, context %d tokens", r->model, r->context);
    if (r->usable_context >= 0) fprintf(f, ", usable context %d", r->usable_context);
    if (r->n_chunks)
        fprintf(f, "; %d chunks of text, %d positions compared; a query attends to %.0f tokens",
                r->n_chunks, r->n_scored, r->attended);
    fputs(".\n\n", f);
    if (r->n_chunks) text_table(f, r);
    if (r->n_tasks || r->rows[0].choices[0].n) task_table(f, r, ask);
    return !ferror(f);
}
