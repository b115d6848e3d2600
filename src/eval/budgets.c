/* eval/budgets.c - see budgets.h. Candidates of a batch are rows of one evaluation: they share the
 * full cache's reading of every text, and where the policy decides at marks its prefix too. */
#include "eval/budgets.h"

#include "base/alloc.h"
#include "base/os.h"
#include "eval/searchlog.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { CHUNKS = 2, SEEDS = 2, GROUPS = 8, STEPS = 3, ROUNDS = 6 };
static const double FIRST_STEP = 0.5, LEAST = 0.1;

/* ---- the search ---------------------------------------------------------------------------- */

int wn_budgets_group(const wn_budget_space *s, int g)
{
    return (int)((int64_t)s->n_layers * g / s->n_groups);
}

/* Group g gets `by` more for each of its layers, and all others pay for it evenly; false when a
 * weight would leave the bounds. */
static bool move(const wn_budget_space *s, const double *from, int g, double by, double *to)
{
    int a = wn_budgets_group(s, g), b = wn_budgets_group(s, g + 1), others = s->n_layers - (b - a);
    for (int l = 0; l < s->n_layers; l++) {
        to[l] = from[l] + (l >= a && l < b ? by : -by * (b - a) / others);
        if (!(to[l] >= s->least && to[l] <= s->most)) return false;
    }
    return true;
}

wn_status wn_budgets_descend(const wn_budget_space *s, wn_budget_costs *costs, void *ctx,
                             double *best, double *even, double *found, int *n_tried, wn_err *err)
{
    size_t L = (size_t)s->n_layers, most = 2 * (size_t)s->n_groups;
    double *batch = WN_NEW_ARRAY(double, most *L), *cost = WN_NEW_ARRAY(double, most),
           step = FIRST_STEP;
    wn_status st = batch && cost ? WN_OK : wn_fail(err, WN_ENOMEM, "budgets: out of memory");
    for (size_t l = 0; l < L; l++) best[l] = 1;
    if (!st) st = costs(ctx, best, 1, even, err);
    *found = *even;
    *n_tried = 1;
    for (int i = 0; i < STEPS && s->n_groups > 1 && !st; i++, step /= 2)
        for (int round = 0; round < ROUNDS; round++) {
            int n = 0, top = -1;
            for (int k = 0; k < 2 * s->n_groups; k++)
                n += move(s, best, k / 2, k % 2 ? -step : step, batch + (size_t)n * L);
            if (!n || (s->most_tried && *n_tried + n > s->most_tried) ||
                (s->enough && s->enough(s->enough_ctx)))
                break;
            if ((st = costs(ctx, batch, n, cost, err))) break;
            *n_tried += n;
            for (int k = 0; k < n; k++)
                if (cost[k] < *found) *found = cost[k], top = k;
            if (top < 0) break;
            memcpy(best, batch + (size_t)top * L, sizeof *best * L);
        }
    wn_free(batch);
    wn_free(cost);
    return st;
}

/* ---- what a candidate costs ------------------------------------------------------------------ */

typedef struct {
    wn_model *m;
    const wn_budgets_opts *o;
    const wn_profile *like;             /* sizes of the profiles that candidates are shown as */
    wn_policy policy;
    wn_search_log *log;
    int n_tried;
    double least;                       /* cost so far */
    uint64_t end_us;                    /* 0: none */
    bool cut_short;
    char what[80];
} search;

static void on_progress(void *ctx, const char *what, int done, int total)
{
    search *s = ctx;
    (void)what;
    if (s->o->progress) s->o->progress(s->o->progress_ctx, s->what, done, total);
}

/* Answers that the full cache gives and the row does not, as a share of those asked for. */
static double lost_answers(const wn_eval_report *r, int row)
{
    double sum = 0;
    for (int t = 0; t < r->n_tasks; t++)
        for (int m = 0; m < WN_ASK_MODES; m++)
            sum += fmax(r->rows[0].tasks[t][m].mean - r->rows[row].tasks[t][m].mean, 0);
    return r->n_tasks ? sum / (r->n_tasks * WN_ASK_MODES) : 0;
}

static wn_status measure(search *s, wn_eval_row *rows, int n, double *costs, wn_err *err)
{
    const wn_budgets_opts *o = s->o;
    wn_eval_report r;
    wn_eval_opts eo = { .rows = rows, .n_rows = n, .context = o->context,
                        .max_chunks = o->n_chunks ? o->n_chunks : CHUNKS, .tasks = o->tasks,
                        .phrases = o->phrases, .n_seeds = o->n_seeds ? o->n_seeds : SEEDS,
                        .seed = o->seed, .ask = { true, true }, .n_threads = o->n_threads,
                        .mem = o->mem, .progress = on_progress, .progress_ctx = s,
                        .stop = o->stop };
    wn_status st = wn_eval_run(&r, s->m, &eo, err);
    if (st) return st;
    for (int i = 0; i < n; i++) costs[i] = r.rows[i + 1].kl_mean + lost_answers(&r, i + 1);
    wn_eval_report_release(&r);
    return WN_OK;
}

/* Candidates as rows of one evaluation, each with a profile that shows its weights. */
static wn_status try_batch(search *s, const double *weights, int n, double *costs, wn_err *err)
{
    size_t L = (size_t)s->like->n_layers;
    wn_eval_row *rows = WN_NEW_ARRAY(wn_eval_row, n);
    wn_profile **shown = WN_NEW_ARRAY(wn_profile *, n);
    wn_status st = rows && shown ? WN_OK : wn_fail(err, WN_ENOMEM, "budgets: out of memory");
    for (int i = 0; i < n && !st; i++) {
        wn_profile_budget *b;
        if ((st = wn_profile_new(&shown[i], (int)L, s->like->n_heads, s->like->n_lanes, err)) ||
            (st = wn_profile_add_budget(shown[i], s->policy.text, s->policy.recipe->name,
                                        s->policy.budget, &b, err)))
            break;
        memcpy(b->weight, weights + (size_t)i * L, sizeof *b->weight * L);
        rows[i] = (wn_eval_row){ .kv = s->policy.text, .profile = shown[i] };
    }
    if (!st) st = measure(s, rows, n, costs, err);
    for (int i = 0; shown && i < n; i++) wn_profile_close(shown[i]);
    wn_free(shown);
    wn_free(rows);
    return st;
}

static wn_status costs_of(void *ctx, const double *weights, int n, double *costs, wn_err *err)
{
    search *s = ctx;
    size_t n_weights = (size_t)n * (size_t)s->like->n_layers;
    bool known;
    if (s->n_tried)
        snprintf(s->what, sizeof s->what, "budgets, %d tried, the best costs %.4g", s->n_tried,
                 s->least);
    else snprintf(s->what, sizeof s->what, "budgets, even ones");
    wn_status st = wn_search_log_find(s->log, weights, n_weights, costs, (size_t)n, &known, err);
    if (!st && !known && !(st = try_batch(s, weights, n, costs, err)))
        st = wn_search_log_add(s->log, weights, n_weights, costs, (size_t)n, err);
    for (int i = 0; i < n && !st; i++)
        s->least = s->n_tried + i ? fmin(s->least, costs[i]) : costs[i];
    s->n_tried += n;
    return st;
}

static bool is_late(void *ctx)
{
    search *s = ctx;
    s->cut_short |= s->end_us && wn_os_now_us() >= s->end_us;
    return s->cut_short;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* The policy with +alloc:profile, as its user would write it. */
static wn_status make_policy(wn_policy *p, const char *kv, wn_err *err)
{
    wn_status st = wn_policy_parse(p, kv, err);
    if (st) return st;
    const wn_stage *own = wn_stage_find(WN_STAGE_ALLOC, "profile"),
                   *given = p->stages[WN_STAGE_ALLOC].stage;
    if (!p->recipe->score)
        return wn_fail(err, WN_EINVAL, "%s makes whole plans: it has no budgets per layer",
                       p->recipe->name);
    if (given && given != own)
        return wn_fail(err, WN_EINVAL, "%s: +alloc:%s and searched budgets exclude each other",
                       p->recipe->name, given->name);
    if (p->budget_kind != WN_BUDGET_SHARE || !p->budget_given || p->budget >= 1)
        return wn_fail(err, WN_EINVAL,
                       "%s: budgets are searched for a share below 100%%, as in %s@25%%", kv,
                       p->recipe->name);
    p->stages[WN_STAGE_ALLOC].stage = own;
    return wn_policy_set_share(p, p->budget, err);
}

static void make_key(const search *s, char key[40])
{
    XXH3_state_t *x = XXH3_createState();
    const wn_budgets_opts *o = s->o;
    size_t n;
    const char *hay = wn_phrases_haystack(o->phrases, &n);
    int64_t numbers[] = { o->context,       o->n_chunks, o->n_seeds,   o->n_groups,
                          (int64_t)o->seed, o->search,   o->most_tried };
    XXH3_64bits_reset(x);
    XXH3_64bits_update(x, s->like->fingerprint, sizeof s->like->fingerprint);
    XXH3_64bits_update(x, wn_kernels_get()->numerics, strlen(wn_kernels_get()->numerics));
    XXH3_64bits_update(x, s->policy.text, strlen(s->policy.text));
    XXH3_64bits_update(x, numbers, sizeof numbers);
    XXH3_64bits_update(x, o->family, strlen(o->family));
    XXH3_64bits_update(x, hay, n);
    for (int t = 0; o->tasks && o->tasks[t]; t++)
        XXH3_64bits_update(x, o->tasks[t]->name, strlen(o->tasks[t]->name) + 1);
    snprintf(key, 40, "%s-%016llx", o->search == WN_SEARCH_EVOLVE ? "evolve" : "descend",
             (unsigned long long)XXH3_64bits_digest(x));
    XXH3_freeState(x);
}

wn_status wn_budgets_search(wn_profile *p, wn_model *m, const wn_budgets_opts *o, wn_err *err)
{
    search s = { .m = m, .o = o, .like = p,
                 .end_us = o->seconds > 0 ? wn_os_now_us() + (uint64_t)(o->seconds * 1e6) : 0 };
    int L = p->n_layers, tried,
        groups = o->search == WN_SEARCH_EVOLVE ? wn_budgets_evolve_groups(L) : GROUPS;
    char key[40];
    double *best = NULL, even, found;
    wn_profile_budget *b;
    wn_status st = make_policy(&s.policy, o->kv, err);
    if (st) return st;
    wn_budget_space space = { .n_layers = L,
                              .n_groups = WN_MIN(o->n_groups ? o->n_groups : groups, L),
                              .least = LEAST, .most = 1 / s.policy.budget,
                              .most_tried = o->most_tried, .enough = is_late, .enough_ctx = &s };
    make_key(&s, key);
    if ((st = wn_search_log_open(&s.log, o->state, key, err))) return st;
    if (!(best = WN_NEW_ARRAY(double, L))) st = wn_fail(err, WN_ENOMEM, "budgets: out of memory");
    if (!st && o->search == WN_SEARCH_EVOLVE)
        st = wn_budgets_evolve(&space, o->seed, costs_of, &s, best, &even, &found, &tried, err);
    else if (!st) st = wn_budgets_descend(&space, costs_of, &s, best, &even, &found, &tried, err);
    if (!st && !(st = wn_profile_add_budget(p, s.policy.text, s.policy.recipe->name,
                                            s.policy.budget, &b, err))) {
        memcpy(b->weight, best, sizeof *best * (size_t)L);
        b->even = even;
        b->found = found;
        b->n_tried = tried;
    }
    if (o->cut_short) *o->cut_short = s.cut_short;
    wn_search_log_close(s.log);
    wn_free(best);
    return st;
}
