/* cli/replay.c - `winnow replay`: decisions of a recorded run, taken again without its model.
 *
 * Alone, it asks the recorded policy and wants the recorded plans back. With --kv it shows
 * the recorded views to other policies and puts what they would keep beside what was kept.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/io.h"

#include "base/alloc.h"
#include "eval/replay.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_POLICIES = 64 };
static const char note[] =
    "each policy was shown the views of the recorded run, not those that its own evictions "
    "would have led to";

typedef struct {
    const char *file;
    char *kv[MAX_POLICIES];
    int n_kv;
    bool json;
} options;

typedef struct {
    wn_policy policy;
    wn_replay_figures *f;               /* (n) one for each decision */
    int n, cap;
} row;

static int wrong(const char *what)
{
    fprintf(stderr, "winnow replay: %s\n", what);
    return WN_EXIT_USAGE;
}

static int failed(const wn_err *err)
{
    wn_cli_complain("replay", "%s", err->text);
    return WN_EXIT_FAILED;
}

/* ---- which policies -------------------------------------------------------------------------- */

/* Length of the first policy of a list: up to a comma outside parentheses that is not followed by
 * a key ("random,k=f32" is one policy). */
static size_t first_of_list(const char *s)
{
    int depth = 0;
    size_t i = 0;
    for (; s[i]; i++) {
        if (s[i] == '(') depth++;
        if (s[i] == ')') depth--;
        if (s[i] != ',' || depth > 0) continue;
        size_t word = strcspn(s + i + 1, "=,(@+");
        if (s[i + 1 + word] != '=') return i;
    }
    return i;
}

/* The policies of all --kv, copies; each may be a list. */
static int split_lists(options *o, const wn_arg_list *given)
{
    for (int i = 0; i < given->n; i++)
        for (const char *v = given->items[i]; *v;) {
            size_t k = first_of_list(v);
            if (o->n_kv == MAX_POLICIES) return wrong("more than 64 policies");
            if (!(o->kv[o->n_kv] = wn_strndup(v, k))) return wrong("out of memory");
            o->n_kv++;
            v += k + (v[k] == ',');
        }
    return WN_EXIT_OK;
}

/* ---- replaying ------------------------------------------------------------------------------- */

static wn_status ask(wn_replay *r, const wn_trace_decision *d, row *w, wn_err *err)
{
    const wn_plan *plan;
    wn_status st = wn_replay_decide(r, d, &w->policy, &plan, err);
    if (st) return st;
    if (w->n == w->cap) {
        int cap = w->cap ? 2 * w->cap : 64;
        wn_replay_figures *f = wn_realloc(w->f, sizeof *f * (size_t)cap);
        if (!f) return wn_fail(err, WN_ENOMEM, "out of memory");
        w->f = f;
        w->cap = cap;
    }
    w->f[w->n++] = wn_replay_measure(r, d, plan);
    return WN_OK;
}

/* Decision by decision, every policy. own: there is one row, the recorded policy's, and its plans
 * must be the recorded ones; why gets the first difference. */
static wn_status replay(wn_trace *t, row *rows, int n, bool own, char *why, size_t size,
                        wn_err *err)
{
    const wn_trace_decision *d;
    const wn_plan *plan;
    wn_replay *r;
    wn_status st = wn_replay_open(&r, t, err);
    *why = '\0';
    while (!st && !*why && !(st = wn_trace_next(t, &d, err)) && d) {
        for (int i = 0; i < n && !st; i++) st = ask(r, d, &rows[i], err);
        if (!st && own && !(st = wn_replay_decide(r, d, &rows[0].policy, &plan, err)))
            wn_replay_same(&d->view, &d->plan, plan, why, size);
    }
    wn_replay_close(r);
    return st;
}

/* ---- reports --------------------------------------------------------------------------------- */

static void print_figures(const char *at, const wn_replay_figures *f, const char *name)
{
    char attention[16] = "-";
    if (f->attention >= 0) snprintf(attention, sizeof attention, "%.1f %%", 100 * f->attention);
    printf("%8s %10lld %10lld %7.1f %% %8.3f %10s  %s\n", at, (long long)f->slots,
           (long long)f->kept, f->full ? 100 * (double)f->kept / (double)f->full : 0, f->agreement,
           attention, name);
}

static void print_table(const wn_trace_head *h, const row *rows, int n)
{
    printf("recorded: %s, %d layers, %d lanes%s%s\n\n", h->policy, h->n_layers, h->n_lanes,
           *h->model ? ", " : "", h->model);
    printf("%8s %10s %10s %9s %8s %10s  %s\n", "at", "slots", "kept", "of full", "agrees",
           "attention", "policy");
    for (int k = 0; k < (n ? rows[0].n : 0); k++)
        for (int i = 0; i < n; i++) {
            char at[16];
            snprintf(at, sizeof at, "%d", rows[i].f[k].at);
            print_figures(at, &rows[i].f[k], rows[i].policy.text);
        }
    for (int i = 0; i < n; i++) {
        wn_replay_figures total;
        wn_replay_total(rows[i].f, rows[i].n, &total);
        print_figures("all", &total, rows[i].policy.text);
    }
    printf("\nagrees: slots that both keep, of those that either keeps; attention: the share of "
           "what was recorded\n"
           "that falls on slots that stay. Note: %s.\n",
           note);
}

static json_t *figures_json(const wn_replay_figures *f)
{
    return json_pack("{s:i, s:I, s:I, s:f, s:f, s:o}", "at", f->at, "slots", (json_int_t)f->slots,
                     "kept", (json_int_t)f->kept, "of_full",
                     f->full ? (double)f->kept / (double)f->full : 0.0, "agreement", f->agreement,
                     "attention", f->attention < 0 ? json_null() : json_real(f->attention));
}

static int print_json(const wn_trace *t, const row *rows, int n, bool own, const char *why)
{
    const wn_trace_head *h = wn_trace_get_head(t);
    json_t *all = json_array(), *j;
    for (int i = 0; i < n; i++) {
        wn_replay_figures total;
        json_t *each = json_array();
        for (int k = 0; k < rows[i].n; k++)
            json_array_append_new(each, figures_json(&rows[i].f[k]));
        wn_replay_total(rows[i].f, rows[i].n, &total);
        json_array_append_new(all, json_pack("{s:s, s:o, s:o}", "kv", rows[i].policy.text, "all",
                                             figures_json(&total), "decisions", each));
    }
    j = json_pack("{s:s, s:s, s:i, s:i, s:I, s:o}", "recorded", h->policy, "model", h->model,
                  "lanes", h->n_lanes, "decisions", n ? rows[0].n : 0, "torn_bytes",
                  (json_int_t)wn_trace_torn(t), "policies", all);
    if (j && own) json_object_set_new(j, "same", json_boolean(!*why));
    if (j && *why) json_object_set_new(j, "difference", json_string(why));
    if (j && !own) json_object_set_new(j, "note", json_string(note));
    char *line = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(j);
    if (!line) return wrong("the JSON line could not be made");
    puts(line);
    free(line);
    return WN_EXIT_OK;
}

static int run(const options *o)
{
    wn_trace *t = NULL;
    wn_err err;
    char why[200];
    bool own = o->n_kv == 0;
    int n = own ? 1 : o->n_kv, rc = WN_EXIT_FAILED;
    row *rows = WN_NEW_ARRAY(row, n);
    wn_status st = rows ? wn_trace_open(&t, o->file, &err)
                        : wn_fail(&err, WN_ENOMEM, "out of memory");
    for (int i = 0; i < n && !st; i++)
        st = wn_policy_parse(&rows[i].policy, own ? wn_trace_get_head(t)->policy : o->kv[i], &err);
    if (st) goto done;
    const wn_trace_head *h = wn_trace_get_head(t);
    if ((st = replay(t, rows, n, own, why, sizeof why, &err))) goto done;
    if (wn_trace_torn(t))
        fprintf(stderr,
                "winnow replay: %s ends within a decision (its last %zu bytes); the %d before it "
                "are used\n",
                o->file, wn_trace_torn(t), rows[0].n);
    rc = own && *why ? WN_EXIT_FAILED : WN_EXIT_OK;
    if (o->json) {
        if (print_json(t, rows, n, own, why)) rc = WN_EXIT_FAILED;
    } else if (!own) print_table(h, rows, n);
    else if (*why) printf("decision %d is not the recorded one: %s\n", rows[0].n, why);
    else printf("%d decisions of %s: every plan is the recorded one\n", rows[0].n, h->policy);
done:
    if (st) rc = failed(&err);
    wn_trace_close(t);
    for (int i = 0; rows && i < n; i++) wn_free(rows[i].f);
    wn_free(rows);
    return rc;
}

const wn_help_page wn_cli_replay_page = {
    .command = "replay",
    .summary = "take recorded cache decisions again, without a model",
    .usage = "FILE [--kv POLICY ...] [--json]",
    .about =
        "Takes the cache decisions that winnow run --trace FILE recorded again, without the "
        "model.\n"
        "Alone, it checks that the recorded policy makes the recorded plans (exit status 1 if "
        "not).\n"
        "With --kv it shows the same views to other policies: what they keep, how much of it is\n"
        "what the recorded policy kept, and how much of the recorded attention falls on it.",
    .examples =
        "winnow run -m models/winnow-demo.gguf -f book.txt --kv snapkv@25% --trace t --trace-rows\n"
        "winnow replay t --kv snapkv@25%,keydiff@25%,random@25%",
};

int wn_cli_replay(int argc, char **argv)
{
    options o = { 0 };
    const char *kv[MAX_POLICIES];
    wn_arg_list given = { kv, 0, MAX_POLICIES };
    const wn_arg table[] = {
        { 0, "kv", WN_ARG_LIST, &given, "POLICY",
          "a policy to ask, or a list of them; may be given many times", 0, 0, 0 },
        { 0, "json", WN_ARG_FLAG, &o.json, NULL, "one JSON line instead of a table", 0, 0, 0 },
    };
    const char *rest[1];
    int n_rest = 0;
    bool help = false;
    int rc = wn_args_parse(table, (int)WN_COUNT(table), argc, argv, rest, 1, &n_rest, &help);
    if (!rc) rc = split_lists(&o, &given);
    if (!rc && help) {
        wn_help(&wn_cli_replay_page, table, (int)WN_COUNT(table));
    } else if (!rc && !n_rest) {
        rc = wrong("which trace? give the file that winnow run --trace wrote");
    } else if (!rc) {
        o.file = rest[0];
        rc = run(&o);
    }
    for (int i = 0; i < o.n_kv; i++) wn_free(o.kv[i]);
    return rc;
}
