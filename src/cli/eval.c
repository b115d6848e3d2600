/* cli/eval.c - `winnow eval`: what a cache policy costs, measured on a model.
 *
 * Policies given without @ are measured at every --budget; those with @, and those that take
 * none, once. The table goes to stdout, progress to stderr. An interrupted run leaves a
 * journal in the cache directory; the same command takes it up again.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/io.h"
#include "cli/long.h"
#include "cli/models.h"
#include "cli/policy.h"

#include "base/alloc.h"
#include "eval/markup.h"
#include "eval/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_POLICIES = 128, MAX_ROWS = 512, MAX_TASKS = 64, MAX_BUDGETS = 16, MAX_LENGTHS = 32 };

typedef struct {
    const char *model, *budget, *tasks, *text, *family, *haystack, *choices, *ask, *chunks,
        *journal, *results, *lengths, *lib, *profile, *calibration;
    long context, seeds, seed, threads;
    size_t mem;
    bool json, csv, markdown, usable, no_speed, no_resume, quiet;
    wn_arg_list kv;
    const char *k_type, *v_type;
    char spelled[MAX_POLICIES][WN_SPEC_BYTES + 48];     /* policies with formats of -ctk, -ctv */
    int n_spelled, at[MAX_LENGTHS], n_at;               /* --lengths */
} options;

static int wrong(const char *what, const char *value)
{
    wn_cli_complain("eval", "%s%s%s", what, value ? ": " : "", value ? value : "");
    return WN_EXIT_USAGE;
}

/* ---- rows ----------------------------------------------------------------------------- */

static int parse_budgets(const char *s, double *out)
{
    int n = 0;
    while (s && *s) {
        char *end;
        double v = strtod(s, &end);
        if (end == s || !(v > 0 && v <= 100) || n == MAX_BUDGETS) return -1;
        if (*end == '%') end++;
        if (*end && *end != ',') return -1;
        out[n++] = v / 100;
        s = *end ? end + 1 : end;
    }
    return n;
}

/* -ctk and -ctv are for policies that name no format for all lanes; the full cache of row 0 stays
 * f16. */
static wn_status with_formats(options *o, const wn_policy *p, const char **kv, wn_err *err)
{
    const char *k = *p->k ? "" : o->k_type, *v = *p->v_format ? "" : o->v_type;
    if (!*k && !*v) return WN_OK;
    if (o->n_spelled == MAX_POLICIES)
        return wn_fail(err, WN_ELIMIT, "more than %d policies", MAX_POLICIES);
    char *to = o->spelled[o->n_spelled++];
    snprintf(to, sizeof o->spelled[0], "%s%s%s%s%s", *kv, *k ? ",k=" : "", k, *v ? ",v=" : "", v);
    *kv = to;
    return WN_OK;
}

typedef struct {
    wn_eval_row *rows; int n;
    double budgets[MAX_BUDGETS]; int n_budgets;
} row_list;

/* A row for each budget, or one; own: one of the policy's own size before them. */
static int add_rows(options *o, row_list *to, const char *kv, bool own)
{
    wn_policy p;
    wn_err err;
    if (wn_policy_parse(&p, kv, &err) || with_formats(o, &p, &kv, &err) ||
        wn_policy_parse(&p, kv, &err))
        return wrong(err.text, NULL);
    bool spread = p.recipe->kind != WN_CLASS_FULL && !p.budget_given && to->n_budgets;
    if (p.recipe->kind == WN_CLASS_FULL && !strcmp(p.recipe->name, "none") &&
        !wn_policy_has_formats(&p))
        return WN_EXIT_OK;
    for (int b = spread && !own ? 0 : -1; b < (spread ? to->n_budgets : 0); b++) {
        if (to->n == MAX_ROWS) return wrong("more than 512 rows", NULL);
        to->rows[to->n++] = (wn_eval_row){ .kv = kv, .share = b >= 0 ? to->budgets[b] : 0 };
    }
    return WN_EXIT_OK;
}

/* Every recipe that drops anything; those whose size the data say at that size, too. */
static int add_all(options *o, row_list *to)
{
    int rc = WN_EXIT_OK;
    for (int i = 0; wn_recipe_at(i) && !rc; i++) {
        const wn_recipe *r = wn_recipe_at(i);
        if (r->kind != WN_CLASS_FULL)
            rc = add_rows(o, to, r->name, r->kind == WN_CLASS_BUDGET_FREE);
    }
    return rc;
}

static int make_rows(options *o, wn_eval_row *rows, int *n)
{
    row_list to = { .rows = rows };
    int rc = WN_EXIT_OK;
    to.n_budgets = parse_budgets(o->budget, to.budgets);
    if (to.n_budgets < 0)
        return wrong("--budget wants shares in percent, as in 50,25,12.5, not", o->budget);
    for (int i = 0; i < o->kv.n && !rc; i++)
        rc = !strcmp(o->kv.items[i], "all") ? add_all(o, &to)
                                            : add_rows(o, &to, o->kv.items[i], false);
    *n = to.n;
    return rc;
}

static int make_tasks(const options *o, const wn_task **tasks)
{
    int n = 0;
    const char *s = o->tasks;
    if (!strcmp(s, "all")) {
        for (; wn_tasks[n]; n++) tasks[n] = wn_tasks[n];
        tasks[n] = NULL;
        return WN_EXIT_OK;
    }
    while (*s && strcmp(s, "none")) {
        char name[40];
        size_t len = strcspn(s, ",");
        snprintf(name, sizeof name, "%.*s", (int)WN_MIN(len, sizeof name - 1), s);
        const wn_task *t = wn_task_find(name);
        if (!t || n == MAX_TASKS - 1) {
            fprintf(stderr, "winnow eval: there is no task \"%s\"; there are", name);
            for (int i = 0; wn_tasks[i]; i++)
                fprintf(stderr, "%s %s", i ? "," : "", wn_tasks[i]->name);
            fputs(", all and none\n", stderr);
            return WN_EXIT_USAGE;
        }
        tasks[n++] = t;
        s += len + (s[len] == ',');
    }
    tasks[n] = NULL;
    return WN_EXIT_OK;
}

/* "512,1k,2048" */
static int make_lengths(const char *s, int *out, int *n)
{
    for (*n = 0; s && *s;) {
        char *end;
        long v = strtol(s, &end, 10);
        if (*end == 'k' || *end == 'K') v *= 1024, end++;
        if (end == s || v < 64 || v > 1 << 26 || *n == MAX_LENGTHS || (*end && *end != ','))
            return wrong("--lengths wants tokens, as in 512,1k,2k, not", s);
        out[(*n)++] = (int)v;
        s = *end ? end + 1 : end;
    }
    return WN_EXIT_OK;
}

static int make_chunks(const char *s, int *out)
{
    char *end;
    if (!strcmp(s, "all")) return *out = -1, WN_EXIT_OK;
    if (!strcmp(s, "none")) return *out = -2, WN_EXIT_OK;
    long n = strtol(s, &end, 10);
    if (*end || n < 1 || n > 100000) return wrong("--chunks wants a number, all or none, not", s);
    *out = (int)n;
    return WN_EXIT_OK;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* Where finished work is noted: a file that stays, or one that goes when all is done; NULL:
 * nowhere. */
static const char *journal_of(const options *o, const char *usual)
{
    return o->results ? o->results : o->no_resume ? NULL : o->journal ? o->journal : usual;
}

static int fail(const wn_err *err, const char *journal)
{
    if (!wn_cli_say_interrupted("eval", journal))
        fprintf(stderr, "winnow eval: %s\n", err->text);
    return WN_EXIT_FAILED;
}

static int evaluate(const options *o, const wn_eval_row *rows, int n_rows, const wn_task **tasks,
                    int chunks, const char *journal)
{
    wn_cli_progress p = { .show = isatty(STDERR_FILENO) && !o->quiet };
    wn_eval_opts eo = {
        .rows = rows, .n_rows = n_rows, .context = (int)o->context, .max_chunks = chunks,
        .tasks = tasks, .lengths = o->at, .n_lengths = o->n_at, .n_seeds = (int)o->seeds,
        .seed = (uint64_t)o->seed, .find_usable = o->usable, .speed = !o->no_speed,
        .n_threads = (int)o->threads, .mem = o->mem, .journal = journal, .keep = o->results != NULL,
        .profile = o->profile, .calibration = o->calibration, .progress = wn_cli_on_progress,
        .progress_ctx = &p, .stop = wn_cli_catch_interrupt(),
    };
    wn_model *m = NULL;
    wn_phrases *phrases = NULL;
    wn_choice *choices = NULL;
    char *text = NULL, label[512];
    wn_eval_report report = { 0 };
    wn_err err = { 0 };
    int n_choices = 0;
    eo.ask[WN_ASK_AGNOSTIC] = strcmp(o->ask, "before") != 0;
    eo.ask[WN_ASK_AWARE] = strcmp(o->ask, "after") != 0;
    wn_status st = wn_cli_open_model(&m, o->model, &(wn_model_opts){ .n_threads = (int)o->threads },
                                     &err);
    if (st) goto done;
    const char *family = o->family;
    if ((st = wn_phrases_open_for(&phrases, &family, o->haystack, m, &err))) goto done;
    if (o->text && (st = wn_cli_read_all(o->text, &text, &eo.n_text, &err))) goto done;
    if (o->choices && (st = wn_choices_load(&choices, &n_choices, o->choices, &err))) goto done;
    snprintf(label, sizeof label, "%s|%s|%s", family, o->haystack ? o->haystack : "",
             o->choices ? o->choices : "");
    eo.text = text;
    eo.phrases = phrases;
    eo.choices = choices;
    eo.n_choices = n_choices;
    eo.label = label;
    if ((st = wn_eval_run(&report, m, &eo, &err))) goto done;
    bool ok = o->json  ? wn_eval_write_json(stdout, &report, eo.ask)
              : o->csv ? wn_eval_write_csv(stdout, &report, eo.ask)
              : o->markdown ? wn_eval_write_markdown(stdout, &report, eo.ask)
                       : wn_eval_write_table(stdout, &report, eo.ask);
    if (!ok || fflush(stdout))
        st = wn_fail(&err, WN_EIO, "the output cannot be written: %s", strerror(errno));
done:
    wn_eval_report_release(&report);
    wn_choices_release(choices, n_choices);
    wn_phrases_close(phrases);
    wn_free(text);
    wn_model_close(m);
    return st ? fail(&err, journal) : WN_EXIT_OK;
}

/* ---- the command line ------------------------------------------------------------------------ */

static const char *task_row(int i, const char **about)
{
    *about = wn_tasks[i] ? wn_tasks[i]->about : NULL;
    return wn_tasks[i] ? wn_tasks[i]->name : NULL;
}

const wn_help_page wn_cli_eval_page = {
    .command = "eval",
    .summary = "what a cache policy costs, measured on your model",
    .usage = "-m MODEL --kv POLICY [--kv POLICY ...] [options]",
    .about = "Compares cache policies with the full cache of the same model: divergence of the "
             "next-token\n"
             "distribution, perplexity, bytes, speed, and tasks with exact answers asked before "
             "and after\n"
             "compression. docs/evaluation.md says what each figure means.",
    .examples = "winnow eval -m models/winnow-demo.gguf --kv recent --kv random --context 1024 "
                "--tasks passkey,lookup\n"
                "winnow eval -m models/winnow-demo.gguf --kv all --tasks passkey,lookup --no-speed "
                "--results demo.results",
    .rows_title = "Tasks",
    .row = task_row,
};

/* What the table cannot say: options that exclude each other, and names that must be known before a
 * model is read. */
static int check(const options *o)
{
    int rc;
    if (!o->model) return wrong("which model? give -m FILE (a GGUF file)", NULL);
    if (strcmp(o->ask, "before") && strcmp(o->ask, "after") && strcmp(o->ask, "both"))
        return wrong("--ask is before, after or both, not", o->ask);
    if (o->json + o->csv + o->markdown > 1)
        return wrong("--json, --csv or --markdown, one of them", NULL);
    if (o->results && (o->journal || o->no_resume))
        return wrong("--results is a journal: without --journal and --no-resume", NULL);
    if ((rc = wn_cli_policy("eval", o->lib, NULL))) return rc;
    return wn_cli_formats("eval", *o->k_type ? o->k_type : "f16", *o->v_type ? o->v_type : "f16");
}

/* What the table below fills in; a process reads one command line. */
static const char *policies[MAX_POLICIES];
static options o = { .tasks = "all", .ask = "both", .chunks = "4", .budget = "50,25,12.5",
                     .kv = { policies, 0, MAX_POLICIES }, .k_type = "", .v_type = "" };

static const wn_arg table[] = {
    { 0, "What is measured", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 'm', "model", WN_ARG_STRING, &o.model, "MODEL",
      "GGUF file, or the name of a model (winnow models)", 0, 0, 0 },
    { 0, "kv", WN_ARG_LIST, &o.kv, "POLICY",
      "a policy, or all (of winnow recipes); may be given many times", 0, 0, 0 },
    { 0, "policy-lib", WN_ARG_STRING, &o.lib, "FILE", WN_CLI_POLICY_LIB_HELP, 0, 0, 0 },
    { 0, "profile", WN_ARG_STRING, &o.profile, "FILE", WN_CLI_PROFILE_HELP, 0, 0, 0 },
    { 0, "calibration", WN_ARG_STRING, &o.calibration, "FILE", WN_CLI_CALIBRATION_HELP, 0, 0,
      0 },
    { 0, "budget", WN_ARG_STRING, &o.budget, "LIST",
      "shares in percent for policies without @ (default 50,25,12.5)", 0, 0, 0 },
    { 0, "cache-type-k", WN_ARG_STRING, &o.k_type, "TYPE",
      "format of the keys in rows that name none (winnow recipes lists them)", 0, 0, "-ctk" },
    { 0, "cache-type-v", WN_ARG_STRING, &o.v_type, "TYPE",
      "format of the values; the full cache that rows are compared with is f16", 0, 0, "-ctv" },
    { 'c', "context", WN_ARG_INT, &o.context, "N",
      "tokens (default: the usable context, found first)", 64, 1e9, "ctx-size" },
    { 0, "usable", WN_ARG_FLAG, &o.usable, NULL,
      "find the usable context also when --context is given", 0, 0, 0 },
    { 0, "Text", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 'f', "text", WN_ARG_STRING, &o.text, "FILE",
      "text for KL, agreement and perplexity (default: public-domain prose)", 0, 0, 0 },
    { 0, "chunks", WN_ARG_STRING, &o.chunks, "N",
      "pieces of --context tokens; all; none: tasks only (default 4)", 0, 0, 0 },
    { 0, "Tasks", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 0, "tasks", WN_ARG_STRING, &o.tasks, "LIST",
      "names, all or none (default all; they are listed below)", 0, 0, 0 },
    { 0, "ask", WN_ARG_STRING, &o.ask, "WHEN",
      "questions come before compression, after it, or both (default)", 0, 0, 0 },
    { 0, "lengths", WN_ARG_STRING, &o.lengths, "LIST",
      "tokens of the cases, as in 512,1k,2k (default: the context)", 0, 0, 0 },
    { 0, "seeds", WN_ARG_INT, &o.seeds, "K", "cases of each task (default 8)", 0, 100000, 0 },
    { 's', "seed", WN_ARG_INT, &o.seed, "N", "other cases (default 0)", 0, 4294967295.0, 0 },
    { 0, "template", WN_ARG_STRING, &o.family, "NAME",
      "phrasing: model (base in turns of its chat template), base, chat, demo\nor a file "
      "(default: what fits the model)",
      0, 0, 0 },
    { 0, "haystack", WN_ARG_STRING, &o.haystack, "FILE",
      "text that facts are hidden in (default: public-domain prose)", 0, 0, 0 },
    { 0, "choices", WN_ARG_STRING, &o.choices, "FILE",
      "multiple choice: JSON lines with question, choices, answer, context", 0, 0, 0 },
    { 0, "Running", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 't', "threads", WN_ARG_INT, &o.threads, "N",
      "threads (default: all processors); changes no figure but speed", 0, 256, 0 },
    { 0, "mem", WN_ARG_BYTES, &o.mem, "SIZE", "ceiling for weights, caches, scratch", 0, 0, 0 },
    { 0, "no-speed", WN_ARG_FLAG, &o.no_speed, NULL,
      "do not time rows: the output is then the same in every run", 0, 0, 0 },
    { 0, "no-resume", WN_ARG_FLAG, &o.no_resume, NULL, "keep no journal of finished work", 0, 0,
      0 },
    { 0, "journal", WN_ARG_STRING, &o.journal, "FILE",
      "keep it here (default: in the cache directory)", 0, 0, 0 },
    { 0, "results", WN_ARG_STRING, &o.results, "FILE",
      "a journal that stays: what it has is not measured again", 0, 0, 0 },
    { 'q', "quiet", WN_ARG_FLAG, &o.quiet, NULL, "no progress", 0, 0, 0 },
    { 0, "json", WN_ARG_FLAG, &o.json, NULL, "JSON instead of a table", 0, 0, 0 },
    { 0, "csv", WN_ARG_FLAG, &o.csv, NULL, "CSV instead of a table", 0, 0, 0 },
    { 0, "markdown", WN_ARG_FLAG, &o.markdown, NULL,
      "Markdown instead of a table for terminals", 0, 0, 0 },
};

int wn_cli_eval(int argc, char **argv)
{
    const wn_task *tasks[MAX_TASKS];
    const char *word;
    char path[600];
    int rc, chunks, n_rows;
    if (argc > 0) wn_cli_journal_path(path, sizeof path, "eval", argc, argv);
    if (!wn_cli_parse(&wn_cli_eval_page, table, (int)WN_COUNT(table), argc, argv, &word, &rc))
        return rc;
    if (word && !o.model) o.model = word;
    if ((rc = check(&o))) return rc;
    wn_eval_row *rows = calloc(MAX_ROWS, sizeof *rows);
    rc = !rows ? wrong("out of memory", NULL) : make_rows(&o, rows, &n_rows);
    if (!rc) rc = make_tasks(&o, tasks);
    if (!rc) rc = make_chunks(o.chunks, &chunks);
    if (!rc) rc = make_lengths(o.lengths, o.at, &o.n_at);
    if (!rc) rc = evaluate(&o, rows, n_rows, tasks, chunks, journal_of(&o, path));
    free(rows);
    return rc;
}
