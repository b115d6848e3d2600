/* policy/recipes/epicache.c - what a conversation speaks of says which of it stays.
 *
 * Source     Kim et al., "EpiCache: Episodic KV Cache Management for Long Conversational Question
 *            Answering", 2025, sections 3.1 and 3.2
 * When       at marks, once the question is there; or at boundaries with for=all, which bounds memory
 * Probe      pieces of the text are clustered (k-means) into episodes; behind a request to recall
 *            come the pieces nearest to the episode's centre, in the order of the text
 *            Resume  any
 * Episode    the one that the last `question` tokens are most like (for=question), or each in turn
 *            (for=all)
 * Score      the largest weight that any query of these, of any head of the group, gives a slot
 * Allocates  every layer the same, and its heads as the layer's best scores are spread over them
 * Retains    the best of each lane
 * Differs    The paper keeps a cache for each episode and gives a question the nearest one's; a
 *            sequence has one cache, so that the episode is chosen before slots are dropped, or all
 *            episodes share the budget. A piece is `piece` tokens, where the paper takes four
 *            utterances, and is like the mean of its tokens' embeddings in the model itself: a
 *            choice of the released code, whose default is a sentence encoder (episodes.c). Layers
 *            get the same, as in the released code without a measurement of the model;
 *            +alloc:sensitive shares by one, but gives the heads of a layer the same. Weights are
 *            shares of what a query sees, the probe's own tokens included.
 */
#include "policy/stages/stages.h"

enum { EPISODES, PIECE, TYPICAL, FOR, QUESTION };

static const wn_param params[] = {
    [EPISODES] = { "episodes", WN_PARAM_INT, 4, 1, WN_EPISODES_MAX, 0, "clusters of pieces" },
    [PIECE] = { "piece", WN_PARAM_INT, 64, 4, 4096, 0, "tokens of a piece" },
    [TYPICAL] = { "typical", WN_PARAM_INT, 4, 1, 64, 0, "pieces of an episode that are the probe" },
    [FOR] = { "for", WN_PARAM_WORD, 0, 0, 1, "question|all",
              "episodes that vote: the one nearest to the question, or all" },
    [QUESTION] = { "question", WN_PARAM_INT, 64, 1, 4096, 0, "last tokens that are the question" },
};

static void probe(const wn_params *p, wn_probe *out)
{
    *out = (wn_probe){ .kind = WN_PROBE_EPISODES,
                       .say = "\n\nNames, events, dates, plans and opinions said above:\n\n",
                       .chunk = (int)p->v[PIECE], .n = (int)p->v[TYPICAL],
                       .episodes = (int)p->v[EPISODES],
                       .question = p->v[FOR] > 0 ? 0 : (int)p->v[QUESTION] };
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)p;
    wn_alloc_ada(v, 0, scores, keep);
}

const wn_recipe wn_recipe_epicache = {
    .name = "epicache",
    .family = "probe",
    .source = "Kim et al., \"EpiCache: Episodic KV Cache Management for Long Conversational "
              "Question Answering\", 2025, "
              "sections 3.1 and 3.2",
    .about = "Finds what a conversation speaks of and keeps what pieces of the matter that the "
             "question is about look at. For "
             "long conversations with a question at the end of the prompt, at a small part of "
             "kvzip's price. With "
             "(at=boundary,for=all) all matters share the budget and memory stays bounded while "
             "the text is read: for "
             "questions that are not known yet.",
    .differs = "one cache, not one for each episode; pieces of a fixed size, alike by the model's "
               "own token embeddings and not "
               "a sentence encoder's; layers get the same (+alloc:sensitive: by a profile)",
    .cost = "a pass over some 300 tokens for each episode that votes, and embeddings of the whole "
            "text, before each decision",
    .params = params,
    .n_params = 5,
    .budget = "2048",
    .kind = WN_CLASS_PROBE,
    .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .every = 2048,
    .probe = probe,
    .stats = wn_stage_ask_largest,
    .score = wn_stage_score_largest,
    .allocate = allocate,
};
