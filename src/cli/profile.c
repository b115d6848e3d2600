/* cli/profile.c - `winnow profile`: which heads fetch from far away, and what layers need.
 *
 * Measures once and writes beside the model what policies then go by (docs/profiles.md). The
 * result goes to stdout as a table or JSON, progress to stderr. An interrupted run leaves a
 * journal in the cache directory; the same command takes it up again.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/io.h"
#include "cli/long.h"
#include "cli/models.h"
#include "cli/policy.h"

#include "base/err.h"
#include "eval/budgets.h"
#include "eval/markup.h"
#include "eval/profile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const char *model, *output, *family, *haystack, *journal, *lib, *budgets, *search;
    long context, needles, repeats, sinks, recent, seed, threads;
    size_t mem;
    bool json, no_resume, quiet, check, again;
    long groups, evaluations;
    double minutes;
} options;

static int wrong(const char *what, const char *value)
{
    wn_cli_complain("profile", "%s%s%s", what, value ? ": " : "", value ? value : "");
    return WN_EXIT_USAGE;
}

/* ---- what is shown -------------------------------------------------------------------- */

static void print_lanes(const wn_profile *p)
{
    int per_layer = p->n_lanes / p->n_layers, n[3] = { 0 };
    printf("layer head class      %8s %6s %6s %9s %6s %7s %6s   query heads that copy\n", "needle",
           "copy", "span", "induction", "echo", "stream", "loss");
    for (int i = 0; i < p->n_lanes; i++) {
        const wn_head_scores *s = &p->lanes[i];
        int group = p->n_heads / per_layer, first = i % per_layer * group;
        printf("%5d %4d %-10s %8.3f %6.3f %6.3f %9.3f %6.3f %7.3f %6.3f  ", i / per_layer,
               i % per_layer, wn_head_class_name(s->kind), (double)s->needle, (double)s->copy,
               (double)s->span, (double)s->induction, (double)s->echo, (double)s->stream,
               (double)s->loss);
        for (int h = first; h < first + group; h++)
            if (p->heads[i / per_layer * p->n_heads + h].kind == WN_HEAD_RETRIEVAL)
                printf(" %d", h);
        putchar('\n');
        n[s->kind]++;
    }
    printf("\n%d of %d lanes fetch, %d stream, %d do neither\n", n[WN_HEAD_RETRIEVAL], p->n_lanes,
           n[WN_HEAD_STREAMING], n[WN_HEAD_MIXED]);
}

static void print_budgets(const wn_profile *p)
{
    for (int i = 0; i < p->n_budgets; i++) {
        const wn_profile_budget *b = &p->budgets[i];
        printf("\nbudgets for %s at %g%%: %.4g with equal layers, %.4g with these (%d tried)\n ",
               b->recipe, b->share * 100, b->even, b->found, b->n_tried);
        for (int l = 0; l < p->n_layers; l++) printf(" %.2f", b->weight[l]);
        putchar('\n');
    }
}

static void print_proof(const wn_profile_proof *x)
{
    static const char *const what[WN_PROOF_ROWS] = { "nothing", "the lanes that fetch",
                                                     "as many others", "all others" };
    const int n[WN_PROOF_ROWS] = { 0, x->n_fetch, WN_MIN(x->n_fetch, x->n_lanes - x->n_fetch),
                                   x->n_lanes - x->n_fetch };
    printf("\nlose the middle of the text   lanes  passkey  needle  lookup\n");
    for (int i = 0; i < WN_PROOF_ROWS; i++)
        printf("%-29s %5d %8.2f %7.2f %7.2f\n", what[i], n[i], x->score[i][0], x->score[i][1],
               x->score[i][2]);
}

static wn_status show(const options *o, const wn_profile *p, const char *path, wn_err *err)
{
    if (o->json) {
        char *text;
        wn_status st = wn_profile_text(p, &text, err);
        if (st) return st;
        fputs(text, stdout);
        free(text);
    } else {
        print_lanes(p);
        print_budgets(p);
        printf("\n%s: %s, %d texts of %d tokens; the model wrote %.0f%% of the needles' tokens by "
               "itself\n",
               path, p->model, p->how.n_needles + p->how.n_repeats, p->how.context,
               p->how.answered * 100);
    }
    return fflush(stdout)
               ? wn_fail(err, WN_EIO, "the output cannot be written: %s", strerror(errno))
               : WN_OK;
}

/* ---- the command ------------------------------------------------------------------------ */

static int fail(const wn_err *err, const char *journal)
{
    if (!wn_cli_say_interrupted("profile", journal)) wn_cli_complain("profile", "%s", err->text);
    return WN_EXIT_FAILED;
}

/* The heads as an earlier run found them, for budgets and proofs; else they are measured. */
static wn_status find_heads(wn_profile **p, const options *o, wn_model *m,
                            const wn_profile_opts *po, const char *path, wn_err *err)
{
    wn_profile *old = NULL;
    wn_status st = WN_OK;
    if (!access(path, F_OK) && wn_engine_read_profile(&old, m, path, err) && o->budgets &&
        !o->again)
        return wn_fail_prefix(err, err->status,
                              "--budgets adds to the profile there is (--again measures anew)");
    if (old && (o->budgets || o->check) && !o->again) {
        *p = old;
        return WN_OK;
    }
    if (!(st = wn_profile_measure(p, m, po, err)) && old)
        st = wn_profile_take_budgets(*p, old, err);
    wn_profile_close(old);
    return st;
}

static const char *const searches[] = {
    [WN_SEARCH_DESCEND] = "descend", [WN_SEARCH_EVOLVE] = "evolve"
};

static bool find_search(const char *name, wn_search *out)
{
    *out = WN_SEARCH_DESCEND;
    for (size_t i = 0; name && i < WN_COUNT(searches); i++)
        if (!strcmp(name, searches[i])) {
            *out = (wn_search)i;
            return true;
        }
    return !name;
}

static wn_status search_budgets(wn_profile *p, const options *o, wn_model *m,
                                const wn_profile_opts *po, const char *state, bool *cut_short,
                                wn_err *err)
{
    const wn_task *tasks[] = { wn_task_find("needle"), wn_task_find("lookup"), NULL };
    wn_budgets_opts bo = { .kv = o->budgets,
                           .context = o->context ? (int)o->context
                                                 : WN_MIN(1024, m->hp.n_ctx_train),
                           .n_groups = (int)o->groups,
                           .tasks = tasks,
                           .seed = (uint64_t)o->seed,
                           .phrases = po->phrases,
                           .family = po->family,
                           .n_threads = po->n_threads,
                           .mem = po->mem,
                           .state = state,
                           .most_tried = (int)o->evaluations,
                           .seconds = o->minutes * 60,
                           .cut_short = cut_short,
                           .progress = po->progress,
                           .progress_ctx = po->progress_ctx,
                           .stop = po->stop };
    find_search(o->search, &bo.search);
    return wn_budgets_search(p, m, &bo, err);
}

/* Written after the heads and again after the search, whose state lies beside it until then: an
 * interruption loses the batch at hand. */
static wn_status make(wn_profile **p, const options *o, wn_model *m, const wn_profile_opts *po,
                      const char *path, wn_err *err)
{
    char state[4096 + 8];
    bool cut_short = false;
    wn_status st = find_heads(p, o, m, po, path, err);
    if (st || (st = wn_profile_write(*p, path, err)) || !o->budgets) return st;
    snprintf(state, sizeof state, "%s.search", path);
    if ((st = search_budgets(*p, o, m, po, o->no_resume ? NULL : state, &cut_short, err)) ||
        (st = wn_profile_write(*p, path, err)))
        return st;
    if (cut_short)
        fprintf(stderr, "winnow profile: the time is over; the best so far is written%s\n",
                o->no_resume ? "" : ", and the same command goes on from here");
    else if (!o->no_resume) unlink(state);
    return WN_OK;
}

static int run(const options *o, const char *journal)
{
    wn_cli_progress progress = { .show = isatty(STDERR_FILENO) && !o->quiet };
    wn_profile_opts po = {
        .context = (int)o->context, .n_needles = (int)o->needles, .n_repeats = (int)o->repeats,
        .sinks = (int)o->sinks, .recent = (int)o->recent, .seed = (uint64_t)o->seed,
        .n_threads = (int)o->threads, .mem = o->mem, .journal = journal,
        .progress = wn_cli_on_progress, .progress_ctx = &progress, .stop = wn_cli_catch_interrupt(),
    };
    char beside[4096];
    wn_model *m = NULL;
    wn_phrases *phrases = NULL;
    wn_profile *p = NULL;
    wn_profile_proof proof;
    wn_err err = { 0 };
    wn_status st = wn_cli_open_model(&m, o->model, &(wn_model_opts){ .n_threads = (int)o->threads },
                                     &err);
    if (st) goto done;
    wn_engine_profile_path(m, beside, sizeof beside);
    const char *path = o->output ? o->output : beside;
    po.family = o->family;
    if ((st = wn_phrases_open_for(&phrases, &po.family, o->haystack, m, &err))) goto done;
    po.phrases = phrases;
    if ((st = make(&p, o, m, &po, path, &err)) ||
        (o->check && (st = wn_profile_check(&proof, p, m, &po, &err))))
        goto done;
    st = show(o, p, path, &err);
    if (o->check) print_proof(&proof);
    if (p->how.answered < 0.6)
        fprintf(stderr,
                "winnow profile: the model wrote %.0f%% of the needles' tokens by itself: its "
                "scores say little\n",
                p->how.answered * 100);
done:
    wn_profile_close(p);
    wn_phrases_close(phrases);
    wn_model_close(m);
    return st ? fail(&err, journal) : WN_EXIT_OK;
}

/* ---- the command line ------------------------------------------------------------------------ */

const wn_help_page wn_cli_profile_page = {
    .command = "profile",
    .summary = "find the heads that fetch from far away, and budgets for layers",
    .usage = "MODEL [options]",
    .about = "Finds the attention heads that fetch tokens from far away and those that look at the "
             "first and the\n"
             "last tokens only, on texts made on the spot, and writes MODEL.profile for policies "
             "that go by it\n"
             "(+alloc:heads, +alloc:profile). docs/profiles.md says what each figure means.",
    .examples =
        "winnow profile models/winnow-demo.gguf\n"
        "winnow profile models/winnow-demo.gguf --budgets snapkv@25%\n"
        "winnow profile models/winnow-demo.gguf --budgets snapkv@25% --search evolve --minutes 30",
};

/* What the table cannot say: options that need or exclude each other. */
static int check(const options *o)
{
    wn_search how;
    if (!o->model) return wrong("which model? give a GGUF file", NULL);
    if (!find_search(o->search, &how))
        return wrong("--search: there are descend and evolve, not", o->search);
    if (!o->budgets && (o->search || o->evaluations || o->minutes > 0))
        return wrong("--search, --evaluations and --minutes are about --budgets POLICY", NULL);
    if (o->json && o->check) return wrong("--json or --check, one of them", NULL);
    return wn_cli_policy("profile", o->lib, NULL);
}

/* What the table below fills in; a process reads one command line. */
static options o;

static const wn_arg table[] = {
    { 0, "What is measured", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 'm', "model", WN_ARG_STRING, &o.model, "FILE", "GGUF file", 0, 0, 0 },
    { 'o', "output", WN_ARG_STRING, &o.output, "FILE",
      "profile to write (default: the model's path and .profile)", 0, 0, 0 },
    { 'c', "context", WN_ARG_INT, &o.context, "N",
      "tokens of a text (default 2048, or what the model was trained for)", 256, 1e6,
      "ctx-size" },
    { 0, "needles", WN_ARG_INT, &o.needles, "N",
      "texts with a fact and a question (default 12)", 1, 10000, 0 },
    { 0, "repeats", WN_ARG_INT, &o.repeats, "N", "texts of repeated random tokens (default 4)",
      1, 10000, 0 },
    { 0, "sinks", WN_ARG_INT, &o.sinks, "N",
      "first tokens that a streaming head sees (default 4)", 1, 1e6, 0 },
    { 0, "recent", WN_ARG_INT, &o.recent, "N",
      "last tokens that it sees (default 256, an eighth of short contexts)", 1, 1e6, 0 },
    { 's', "seed", WN_ARG_INT, &o.seed, "N", "other texts (default 0)", 0, 4294967295.0, 0 },
    { 0, "template", WN_ARG_STRING, &o.family, "NAME",
      "phrasing: model (base in turns of its chat template), base, chat, demo\nor a file "
      "(default: what fits the model)",
      0, 0, 0 },
    { 0, "haystack", WN_ARG_STRING, &o.haystack, "FILE",
      "text that facts are hidden in (default: public-domain prose)", 0, 0, 0 },
    { 0, "Budgets", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 0, "budgets", WN_ARG_STRING, &o.budgets, "POLICY",
      "search slots per layer for this policy, as in snapkv@25%; the heads of\n"
      "the profile there is are taken over; texts have --context tokens (default 1024)",
      0, 0, 0 },
    { 0, "groups", WN_ARG_INT, &o.groups, "N",
      "groups of layers whose budgets move together (default: up to 8)", 1, 4096, 0 },
    { 0, "search", WN_ARG_STRING, &o.search, "HOW",
      "descend: a step at a time; evolve: as EvolKV does, slower and finer\n"
      "(default: descend)",
      0, 0, 0 },
    { 0, "evaluations", WN_ARG_INT, &o.evaluations, "N",
      "budgets that are tried at most (default of evolve: 30 for each layer)", 2, 1e6, 0 },
    { 0, "minutes", WN_ARG_FLOAT, &o.minutes, "N",
      "begin no batch after that; the same command goes on later", 1e-3, 1e6, 0 },
    { 0, "Running", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 't', "threads", WN_ARG_INT, &o.threads, "N",
      "threads (default: all processors); changes no figure", 0, 256, 0 },
    { 0, "mem", WN_ARG_BYTES, &o.mem, "SIZE", "ceiling for weights, caches, scratch", 0, 0, 0 },
    { 0, "policy-lib", WN_ARG_STRING, &o.lib, "FILE", WN_CLI_POLICY_LIB_HELP, 0, 0, 0 },
    { 0, "no-resume", WN_ARG_FLAG, &o.no_resume, NULL, "keep no record of finished work", 0, 0,
      0 },
    { 0, "journal", WN_ARG_STRING, &o.journal, "FILE",
      "keep that of heads here (default: in the cache directory); that of budgets\n"
      "is beside the profile, .search",
      0, 0, 0 },
    { 'q', "quiet", WN_ARG_FLAG, &o.quiet, NULL, "no progress", 0, 0, 0 },
    { 0, "check", WN_ARG_FLAG, &o.check, NULL,
      "ask for needles while the lanes that fetch, and others, lose the middle of the text", 0,
      0, 0 },
    { 0, "again", WN_ARG_FLAG, &o.again, NULL,
      "measure the heads anew also with --budgets and --check", 0, 0, 0 },
    { 0, "json", WN_ARG_FLAG, &o.json, NULL, "the profile itself instead of a table", 0, 0, 0 },
};

int wn_cli_profile(int argc, char **argv)
{
    const char *word;
    char journal[600];
    int rc;
    if (argc > 0) wn_cli_journal_path(journal, sizeof journal, "profile", argc, argv);
    if (!wn_cli_parse(&wn_cli_profile_page, table, (int)WN_COUNT(table), argc, argv, &word, &rc))
        return rc;
    if (word && !o.model) o.model = word;
    if ((rc = check(&o))) return rc;
    return run(&o, o.no_resume ? NULL : o.journal ? o.journal : journal);
}
