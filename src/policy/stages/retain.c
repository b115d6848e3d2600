/* policy/stages/retain.c - which slots stay: the protected ones, then the best. */
#include "policy/policy.h"

#include <math.h>
#include <stdlib.h>

typedef struct { float score; int32_t at; } candidate;

/* Best first; equal scores in the order of positions. */
static int by_score(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

void wn_stage_retain(const wn_view *v, int lane, const float *score, int64_t keep, wn_plan *plan)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    candidate *c = wn_view_scratch(v, sizeof *c * (size_t)l->n);
    int32_t *stay = wn_view_scratch(v, sizeof *stay * (size_t)l->n);
    int n = 0, n_stay = 0;
    if (!c || !stay) {
        plan->status = WN_ENOMEM;
        return;
    }
    for (int i = 0; i < l->n; i++) {
        if (wn_view_protects(v, l->pos[i])) stay[n_stay++] = l->pos[i];
        else c[n++] = (candidate){ isnan(score[i]) ? -INFINITY : score[i], i };
    }
    qsort(c, (size_t)n, sizeof *c, by_score);
    for (int i = 0; i < n && n_stay < keep; i++) stay[n_stay++] = l->pos[c[i].at];
    wn_plan_keep_only(plan, lane, stay, n_stay);
}
