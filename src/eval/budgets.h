/* eval/budgets.h - slots per layer, found by trying.
 *
 * A candidate is a weight for each layer, their mean 1; its cost is what a policy with such
 * budgets loses against the full cache (wn_eval_run()). Which candidates are tried is one
 * function, what they cost another: a search asks for the costs of a batch at a time and knows
 * nothing of models, so other searches can be put in the place of this one.
 *
 *     even weights -> batch: each group of layers a step more, a step less -> the best
 *                  -> again from there, until none is better -> a smaller step
 *
 * Everything is deterministic; batches are kept in a journal, so a search that was interrupted
 * goes on where it stopped.
 */
#ifndef WN_EVAL_BUDGETS_H
#define WN_EVAL_BUDGETS_H

#include "eval/eval.h"

/* Costs of n candidates, weights (n, n_layers). */
typedef wn_status wn_budget_costs(void *ctx, const double *weights, int n, double *costs, wn_err *err);

typedef struct {
    int n_layers, n_groups;             /* layers [n_layers g / n_groups, n_layers (g + 1) / n_groups) move together */
    double least, most;                 /* bounds of a weight */
} wn_budget_space;

/* Descends by coordinates from even weights. best (n_layers). */
wn_status wn_budgets_descend(const wn_budget_space *s, wn_budget_costs *costs, void *ctx, double *best, double *even,
                             double *found, int *n_tried, wn_err *err);

typedef struct {
    const char *kv;                     /* a recipe that takes stages, with a share: "snapkv@25%" */
    int context;                        /* tokens of a chunk of text and of a case */
    int n_chunks, n_seeds, n_groups;    /* 0: 2 chunks, 2 cases of each task, 8 groups at most */
    const wn_task *const *tasks;        /* ends with NULL; NULL: none */
    uint64_t seed;
    const wn_phrases *phrases;
    const char *family;
    int n_threads;
    size_t mem;
    const char *journal;
    void (*progress)(void *ctx, const char *what, int done, int total);
    void *progress_ctx;
    const volatile int *stop;
} wn_budgets_opts;

/* Adds the table to the profile. Cost: KL per token of the text, plus for each task and way of
 * asking the share of answers lost, its mean. */
wn_status wn_budgets_search(wn_profile *p, wn_model *m, const wn_budgets_opts *o, wn_err *err);

#endif
