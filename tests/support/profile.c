#include "tests/support/profile.h"
#include "tests/unit/check.h"

static wn_profile *make(int n_layers, int n_heads, int n_lanes, const uint8_t fingerprint[16],
                        double ratio)
{
    wn_profile *p;
    wn_profile_budget *b;
    wn_err err;
    double sum = 0;
    int per_layer = n_lanes / n_layers;
    if (wn_profile_new(&p, n_layers, n_heads, n_lanes, &err)) fail_msg("%s", err.text);
    strcpy(p->model, "made up");
    memcpy(p->fingerprint, fingerprint, 16);
    p->how = (wn_profile_how){ .numerics = "test/1", .phrases = "base", .context = 2048,
                               .n_needles = 3, .n_repeats = 2, .sinks = 4, .recent = 64, .seed = 7,
                               .answered = 0.5, .copy_from = 0.1, .stream_from = 0.9 };
    for (int i = 0; i < n_layers * n_heads; i++)
        p->heads[i] = (wn_head_scores){ .needle = 1 / (float)(i + 2), .copy = i == 1, .span = 0.5f,
                                        .induction = 0.25f, .echo = 0.125f, .stream = 0.75f,
                                        .loss = 0.1f * (float)i, .kind = WN_HEAD_MIXED };
    for (int i = 0; i < n_lanes; i++)
        p->lanes[i] = (wn_head_scores){ .needle = i == 1 ? 0.8f : 0.05f, .copy = i == 1,
                                        .stream = i == 1 ? 0.25f : 0.96875f,
                                        .loss = i == 1 ? 0.75f : 0.125f,
                                        .kind = i == 1 ? WN_HEAD_RETRIEVAL : WN_HEAD_STREAMING };
    for (int i = 0; i < n_layers; i++) p->layer_loss[i] = 0.5f / (float)(i + per_layer);
    if (wn_profile_add_budget(p, "v1:snapkv+alloc:profile@25%", "snapkv", 0.25, &b, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < n_layers; i++) sum += b->weight[i] = i ? ratio * b->weight[i - 1] : 1;
    for (int i = 0; i < n_layers; i++) b->weight[i] *= n_layers / sum;
    b->even = 0.25;
    b->found = 0.125;
    b->n_tried = 12;
    return test_profile_again(p);
}

void test_profile_for_all(wn_profile *p)
{
    wn_profile_budget *b;
    wn_err err;
    for (int i = 0; wn_recipe_at(i); i++) {
        const char *name = wn_recipe_at(i)->name;
        if (!wn_recipe_at(i)->score || wn_profile_nearest(p, name, 1)) continue;
        if (wn_profile_add_budget(p, name, name, 0.25, &b, &err)) fail_msg("%s", err.text);
        for (int l = 0; l < p->n_layers; l++) b->weight[l] = p->budgets[0].weight[l];
    }
}

wn_profile *test_profile_again(wn_profile *p)
{
    wn_profile *q;
    wn_err err;
    char *text;
    if (wn_profile_text(p, &text, &err) || wn_profile_parse(&q, text, strlen(text), &err))
        fail_msg("%s", err.text);
    wn_profile_close(p);
    free(text);
    return q;
}

wn_profile *test_profile(int n_layers, int n_heads, int n_lanes, const uint8_t fingerprint[16])
{
    return make(n_layers, n_heads, n_lanes, fingerprint, 0.5);
}

wn_profile *test_profile_even(int n_layers, int n_heads, int n_lanes, const uint8_t fingerprint[16])
{
    return make(n_layers, n_heads, n_lanes, fingerprint, 1);
}
