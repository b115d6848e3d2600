/* eval/budgets.h - slots per layer, found by trying.
 *
 * A candidate is a weight for each layer, their mean 1; its cost is what a policy with such
 * budgets loses against the full cache (wn_eval_run()). Which candidates are tried is one
 * function, what they cost another: a search asks for the costs of a batch at a time and knows
 * nothing of models, so other searches can be put in the place of this one.
 *
 *     descend   even weights -> batch: each group of layers a step more, a step less -> the best
 *                            -> again from there, until none is better -> a smaller step
 *     evolve    even weights -> batch: candidates around a mean -> a better mean, a better spread
 *                            -> again, as long as evaluations are left; group after group (evolve.c)
 *
 * Everything is deterministic; costs of batches are kept in a file (searchlog.h), so a search that
 * was interrupted goes on where it stopped.
 */
#ifndef WN_EVAL_BUDGETS_H
#define WN_EVAL_BUDGETS_H

#include "eval/eval.h"

/* Costs of n candidates, weights (n, n_layers). */
typedef wn_status wn_budget_costs(void *ctx, const double *weights, int n, double *costs,
                                  wn_err *err);

typedef struct {
    int n_layers, n_groups;             /* descend: layers of a group move together; evolve: they
                                           are searched together */
    double least, most;                 /* bounds of a weight, least <= 1 <= most */
    int most_tried;                     /* candidates, the even one among them; 0: as many as the
                                           search takes */
    bool (*enough)(void *ctx);          /* asked before each batch: end with what there is? NULL:
                                           never */
    void *enough_ctx;
} wn_budget_space;

/* The first layer of a group; of group n_groups: n_layers. */
int wn_budgets_group(const wn_budget_space *s, int g);

/* Descends by coordinates from even weights. best (n_layers). */
wn_status wn_budgets_descend(const wn_budget_space *s, wn_budget_costs *costs, void *ctx,
                             double *best, double *even, double *found, int *n_tried, wn_err *err);
/* Evolution by a seed. */
wn_status wn_budgets_evolve(const wn_budget_space *s, uint64_t seed, wn_budget_costs *costs,
                            void *ctx, double *best, double *even, double *found, int *n_tried,
                            wn_err *err);
int wn_budgets_evolve_groups(int n_layers);             /* of 8 layers, as the paper's */
/* Scaled so that the mean is 1 and none leaves its bounds; raw > 0. weights may be raw. */
void wn_budgets_complete(const wn_budget_space *s, const double *raw, double *weights);

typedef enum { WN_SEARCH_DESCEND, WN_SEARCH_EVOLVE } wn_search;

typedef struct {
    wn_search search;
    const char *kv;                     /* a recipe that takes stages, with a share: "snapkv@25%" */
    int context;                        /* tokens of a chunk of text and of a case */
    int n_chunks, n_seeds, n_groups;    /* 0: 2 chunks, 2 cases of each task, 8 groups at most
                                           (evolve: of 8 layers) */
    int most_tried;                     /* candidates; 0: as many as the search takes */
    double seconds;                     /* after so many no batch is begun: *cut_short, and the best
                                           so far; 0: no limit */
    const wn_task *const *tasks;        /* ends with NULL; NULL: none */
    uint64_t seed;
    const wn_phrases *phrases;
    const char *family;
    int n_threads;
    size_t mem;
    const char *state;                  /* file of batches that have been tried, the caller's to
                                           remove; NULL: none */
    void (*progress)(void *ctx, const char *what, int done, int total);
    void *progress_ctx;
    const volatile int *stop;
    bool *cut_short;                    /* NULL: nobody asks */
} wn_budgets_opts;

/* Adds the table to the profile. Cost: KL per token of the text, plus for each task and way of
 * asking the share of answers lost, its mean. */
wn_status wn_budgets_search(wn_profile *p, wn_model *m, const wn_budgets_opts *o, wn_err *err);

#endif
