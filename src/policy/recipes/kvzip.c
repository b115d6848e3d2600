/* policy/recipes/kvzip.c - what the text needs to be repeated stays.
 *
 * Source     Kim et al., "KVzip: Query-Agnostic KV Cache Compression with Context Reconstruction",
 *            2025, section 3
 * When       at marks
 * Probe      the text once more, `chunk` tokens at a time behind a request to repeat it; each sees
 *            its own chunk, what is protected, and the probe                        Resume  any
 * Score      the largest weight that any of the repeating queries of any head of the group gives a
 *            slot
 * Allocates  one threshold over all layers and heads (level=pair), or every lane the same
 *            (level=uniform)
 * Retains    4 first slots, and the best
 * Differs    the request's own queries do not count; of equal scores the earlier stay up to the
 *            budget, where the paper drops all that are at the threshold
 */
#include "policy/stages/stages.h"

enum { CHUNK, OVERLAP, LEVEL };

static const wn_param params[] = {
    [CHUNK] = { "chunk", WN_PARAM_INT, 2000, 16, 1 << 20, 0, "tokens that are repeated at a time" },
    [OVERLAP] = { "overlap", WN_PARAM_INT, 8, 0, 256, 0,
                  "tokens in front of a chunk that are repeated with it" },
    [LEVEL] = { "level", WN_PARAM_WORD, 0, 0, 1, "pair|uniform",
                "one threshold for all, or the same for every lane" },
};

static void probe(const wn_params *p, wn_probe *out)
{
    *out = (wn_probe){ .kind = WN_PROBE_REPEAT,
                       .say = "\n\nWrite the text above once more, word for word:\n\n",
                       .chunk = (int)p->v[CHUNK], .overlap = (int)p->v[OVERLAP] };
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    if (p->v[LEVEL] > 0) wn_alloc_level(v, keep);
    else wn_alloc_best(v, 0, wn_view_n_lanes(v), scores, wn_view_budget(v), keep);
}

const wn_recipe wn_recipe_kvzip = {
    .name = "kvzip",
    .family = "probe",
    .source = "Kim et al., \"KVzip: Query-Agnostic KV Cache Compression with Context "
              "Reconstruction\", 2025, section 3",
    .about = "Repeats the text on a fork and keeps what the repetition looked at. Knows nothing of "
             "the question: for "
             "texts that many questions are asked about, when reading twice is affordable.",
    .differs = "the request's own queries do not count",
    .cost =
        "a second pass over the text before each decision, and room for a chunk of it beside it",
    .params = params,
    .n_params = 3,
    .budget = "30%",
    .first = 4,
    .kind = WN_CLASS_PROBE,
    .resume = WN_RESUME_ANY,
    .at = WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .probe = probe,
    .stats = wn_stage_ask_largest,
    .score = wn_stage_score_largest,
    .allocate = allocate,
};
