/* policy/recipes/shotkv.c - whole examples of the prompt stay or go; what is generated has room of
 * its own.
 *
 * Source     Liu et al., "Can LLMs Maintain Fundamental Abilities under KV Cache Compression?",
 *            2025 (ShotKV)
 * When       at marks (the paper: once the prompt is read), or at boundaries, or both
 * Observes   the last `window` queries; spans of the text      Resume  window
 * Score      of a span the mean of its slots' attention, mean over the heads of a layer
 * Retains    of the prompt, which is what is before the last mark: what is in no span and the span
 *            that it ends in (the question), the latest of it where that is too much; then the best
 *            spans, each as far as it fits whole. So often as there is a later decision they stay
 *            as they are. Behind the mark: the last `window` slots and the best of the others, in
 *            what the prompt leaves of the budget
 * Differs    spans are those the caller names, else messages and paragraphs. One that does not fit
 *            is passed over and the next best is tried. A budget that is a share gives prompt and
 *            answer each that share, as the paper has it; of a budget in slots the answer has its
 *            part from `generated`. A text without a mark before it is all prompt
 */
#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

enum { WINDOW, GENERATED };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 32, 1, 64, 0, "last queries that are looked at" },
    [GENERATED] = { "generated", WN_PARAM_FLOAT, 0, 0, 1, 0,
                    "share of the budget for slots behind the last mark alone" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

/* A stretch of one span, and how many of its slots would stay for it. */
typedef struct { int from, to, size; float score; } shot;

/* What stays before every example: it is in no span, or in the one that the prompt ends in. */
static bool is_asked(const wn_view *v, int32_t pos, int end)
{
    int32_t span = wn_view_span(v, pos);
    return !span || span == wn_view_span(v, end - 1) || wn_view_protects(v, pos);
}

static int list_shots(const wn_view *v, const wn_view_lane *l, const float *score, int n, int end,
                      shot *out)
{
    int k = 0;
    for (int from = 0, to; from < n; from = to) {
        shot s = { .from = from };
        double sum = 0;
        for (to = from; to < n && wn_view_span(v, l->pos[to]) == wn_view_span(v, l->pos[from]);
             to++) {
            sum += (double)score[to];
            s.size += !is_asked(v, l->pos[to], end);
        }
        s.to = to;
        s.score = (float)(sum / (to - from));
        if (s.size) out[k++] = s;
    }
    return k;
}

/* Which of the first n slots, of a prompt that ends at position `end`, stay in so many; returns
 * what is left. */
static int64_t choose(const wn_view *v, const wn_view_lane *l, const float *score, int n, int end,
                      int64_t room, bool *stays)
{
    float *key = wn_view_scratch(v, sizeof *key * (size_t)n);
    shot *shots = wn_view_scratch(v, sizeof *shots * (size_t)n), *best;
    int64_t asked = 0;
    if (!key || !shots) return 0;
    for (int i = 0; i < n; i++) {
        bool is = is_asked(v, l->pos[i], end);
        /* the latest first */
        key[i] = wn_view_protects(v, l->pos[i]) ? INFINITY : is ? (float)l->pos[i] : -1;
        asked += is;
    }
    asked = asked < room ? asked : room;
    wn_stage_best(v, key, n, asked, stays);
    room -= asked;
    int k = list_shots(v, l, score, n, end, shots);
    do {
        best = NULL;
        for (shot *s = shots; s < shots + k; s++)
            if (s->size && s->size <= room && (!best || s->score > best->score)) best = s;
        for (int i = best ? best->from : 0; best && i < best->to; i++) stays[i] = true;
        if (best) room -= best->size, best->size = 0;
    } while (best);
    return room;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int mark = wn_view_mark(v), behind = mark ? wn_view_n_tokens(v) - mark : 0,
        end = wn_view_n_tokens(v) - behind;
    int n = wn_stage_slot_at(l, end),
        recent = behind < (int)p->v[WINDOW] ? behind : (int)p->v[WINDOW];
    int64_t part = mark ? (int64_t)((1 - p->v[GENERATED]) * (double)p->lane_slots) : p->lane_slots,
            most = p->lane_slots - recent;
    bool *stays = wn_view_scratch(v, sizeof *stays * (size_t)l->n);
    float *latest = wn_view_scratch(v, sizeof *latest * (size_t)l->n);
    if (!stays || !latest) return;
    wn_stage_layer_mean(v, lane, wn_stage_row, out);
    part = part < most ? part : most > 0 ? most : 0;
    int64_t left = p->lane_slots - part + choose(v, l, out, n, end, part, stays);
    memcpy(latest, out, sizeof *out * (size_t)l->n);
    wn_stage_keep_recent(v, lane, recent, latest);
    for (int i = n; i < l->n; i++)
        latest[i] = wn_view_protects(v, l->pos[i]) ? INFINITY : latest[i];
    wn_stage_best(v, latest + n, l->n - n, left, stays + n);
    /* 0 and more: it stays */
    for (int i = 0; i < l->n; i++) out[i] = stays[i] ? 1 + out[i] : out[i] / (1 + out[i]) - 2;
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)p;
    wn_alloc_above(v, 0, scores, keep);
}

const wn_recipe wn_recipe_shotkv = {
    .name = "shotkv",
    .family = "attention",
    .source = "Liu et al., \"Can LLMs Maintain Fundamental Abilities under KV Cache "
              "Compression?\", 2025 (ShotKV)",
    .about = "Keeps whole spans of the prompt (examples, paragraphs; --span names them), those "
             "that the question looks at most, and the "
             "question. For prompts made of examples, half of one being worth nothing.",
    .differs = "a span that does not fit is passed over; in slots the answer has its part from "
               "`generated`",
    .cost = "attention of the last 32 queries, once per decision",
    .params = params,
    .n_params = 2,
    .budget = "40%",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .wants = WN_WANTS_SPANS,
    .score = score,
    .allocate = allocate,
};
