/* Generated models are what they promise: whole, of the shape asked for, with weights of
 * the right spread in every type, the same bytes for the same seed and any thread count.
 * And the golden models, written and quantised by other programs, open here and decode
 * to nearly the weights they were quantised from: an independent check of the layouts. */
#include "tests/unit/check.h"

#include <glob.h>
#include <math.h>
#include <unistd.h>

#include "gguf/generate.h"
#include "tests/support/gguf_bytes.h"

static const char *const types[] = { "F32",    "F16",    "BF16",   "Q8_0",   "Q4_0",   "Q4_K",
                                     "Q4_K_M", "Q6_K",   "Q4_1",   "Q5_0",   "Q5_1",   "Q2_K",
                                     "Q3_K",   "Q3_K_L", "Q5_K_M", "IQ4_NL", "IQ4_XS", "MXFP4" };

static wn_gguf *generate(char *path, const wn_generate_opts *o, wn_threads *t)
{
    wn_gguf *g = NULL;
    wn_err err;
    strcpy(path, "/tmp/winnow-gen-XXXXXX");
    close(mkstemp(path));
    if (wn_generate(path, o, t, &err) || wn_gguf_open(&g, path, &err)) fail_msg("%s", err.text);
    return g;
}

/* Mean and standard deviation of a tensor's values. */
static void moments(const wn_tensor *t, double *mean, double *sd)
{
    const wn_type_info *info = wn_type_find((uint32_t)t->type);
    int64_t n = (int64_t)(t->bytes / info->block_bytes) * info->block;
    double s1 = 0, s2 = 0;
    float x[256];
    for (int64_t i = 0; i < n; i += info->block) {
        info->decode(x, t->data + (size_t)(i / info->block) * info->block_bytes, info->block);
        for (int k = 0; k < info->block; k++) {
            s1 += (double)x[k];
            s2 += (double)x[k] * (double)x[k];
        }
    }
    *mean = s1 / (double)n;
    *sd = sqrt(s2 / (double)n - *mean * *mean);
}

/* A spread that is off by a factor makes activations grow or vanish over the layers. */
static void weights_have_the_right_spread(void **state)
{
    (void)state;
    char path[64];
    for (size_t i = 0; i < WN_COUNT(types); i++) {
        wn_generate_opts o = { .dim = 256, .n_layers = 1, .ffn = 512, .vocab = 600, .n_kv_heads = 2,
                               .type = types[i], .seed = 3 };
        wn_gguf *g = generate(path, &o, NULL);
        double mean, sd;
        read_everything(g);
        for (size_t k = 0; k < wn_gguf_n_tensors(g); k++) {
            const wn_tensor *t = wn_gguf_tensor_at(g, k);
            double want = t->n_dims == 1 ? 0.1 : (k == 0 ? 2.5 : 1) / sqrt((double)t->ne[0]);
            moments(t, &mean, &sd);
            if (fabs(sd / want - 1) > (t->n_dims == 1 ? 0.2 : 0.08) ||
                fabs(mean - (t->n_dims == 1)) > (t->n_dims == 1 ? 0.03 : 0.15 * want))
                fail_msg("%s %s: mean %g, deviation %g, expected %g", types[i], t->name, mean, sd,
                         want);
        }
        wn_gguf_close(g);
        unlink(path);
    }
}

static bool same_bytes(const wn_gguf *a, const wn_gguf *b)
{
    if (wn_gguf_n_tensors(a) != wn_gguf_n_tensors(b)) return false;
    for (size_t i = 0; i < wn_gguf_n_tensors(a); i++) {
        const wn_tensor *x = wn_gguf_tensor_at(a, i), *y = wn_gguf_tensor_at(b, i);
        if (strcmp(x->name, y->name) || x->bytes != y->bytes || memcmp(x->data, y->data, x->bytes))
            return false;
    }
    return true;
}

static void the_seed_alone_decides(void **state)
{
    (void)state;
    char pa[64], pb[64], pc[64];
    wn_threads *t;
    wn_generate_opts o = { .dim = 512, .n_layers = 1, .vocab = 2000, .type = "Q4_K_M", .seed = 5 };
    assert_int_equal(wn_threads_open(&t, 3, NULL), WN_OK);
    wn_gguf *a = generate(pa, &o, NULL), *b = generate(pb, &o, t);
    o.seed = 6;
    wn_gguf *c = generate(pc, &o, t);
    assert_true(same_bytes(a, b));
    assert_false(same_bytes(a, c));
    wn_gguf_close(a), wn_gguf_close(b), wn_gguf_close(c);
    unlink(pa), unlink(pb), unlink(pc);
    wn_threads_close(t);
}

static int64_t number(const wn_gguf *g, const char *key)
{
    int64_t v = -1;
    wn_err err;
    if (wn_gguf_int(g, key, true, 0, INT64_MAX, &v, &err)) fail_msg("%s", err.text);
    return v;
}

static void architectures_have_their_tensors(void **state)
{
    (void)state;
    char path[64];
    double f = 0;
    wn_generate_opts o = { .arch = "qwen2",
                           .dim = 64,
                           .n_layers = 3,
                           .n_heads = 4,
                           .n_kv_heads = 2,
                           .head_dim = 16,
                           .ffn = 96,
                           .vocab = 400,
                           .type = "Q4_K_M",
                           .untied = true,
                           .rope_scale = 4 };
    wn_gguf *g = generate(path, &o, NULL);
    assert_int_equal(number(g, "qwen2.attention.head_count_kv"), 2);
    assert_int_equal(number(g, "qwen2.attention.key_length"), 16);
    assert_int_equal(wn_gguf_float(g, "qwen2.rope.scaling.factor", true, &f, NULL), WN_OK);
    assert_true(f == 4);
    assert_non_null(wn_gguf_tensor(g, "output.weight"));
    assert_non_null(wn_gguf_tensor(g, "blk.2.attn_k.bias"));
    assert_int_equal(wn_gguf_tensor(g, "blk.0.attn_k.weight")->ne[1], 32);
    assert_int_equal(wn_gguf_tensor(g, "blk.0.ffn_down.weight")->type,
                     WN_TYPE_Q8_0); /* 96 columns */
    wn_gguf_close(g);
    unlink(path);
    o = (wn_generate_opts){
        .arch = "qwen3", .dim = 256, .n_layers = 16, .vocab = 300, .type = "Q4_K_M"
    };
    g = generate(path, &o, NULL);
    assert_int_equal(wn_gguf_tensor(g, "blk.0.attn_q_norm.weight")->ne[0], 64);
    assert_int_equal(wn_gguf_tensor(g, "token_embd.weight")->type, WN_TYPE_Q6_K);
    /* More bits for layers 0, 1 (first eighth), 14, 15 (last) and 4, 7, 10, 13 (every third). */
    for (int i = 0; i < 16; i++) {
        char name[48];
        bool more = i < 2 || i >= 14 || i % 3 == 1;
        snprintf(name, sizeof name, "blk.%d.ffn_down.weight", i);
        assert_int_equal(wn_gguf_tensor(g, name)->type, more ? WN_TYPE_Q6_K : WN_TYPE_Q4_K);
        snprintf(name, sizeof name, "blk.%d.attn_v.weight", i);
        assert_int_equal(wn_gguf_tensor(g, name)->type, more ? WN_TYPE_Q6_K : WN_TYPE_Q4_K);
        snprintf(name, sizeof name, "blk.%d.ffn_up.weight", i);
        assert_int_equal(wn_gguf_tensor(g, name)->type, WN_TYPE_Q4_K);
    }
    wn_gguf_close(g);
    unlink(path);
}

static int compare_str(const void *a, const void *b)
{
    const wn_str *x = a, *y = b;
    int d = memcmp(x->p, y->p, WN_MIN(x->n, y->n));
    return d ? d : (x->n > y->n) - (x->n < y->n);
}

/* Tokens differ, and every merge joins two tokens into one: a tokenizer can rely on it. */
static void the_vocabulary_is_consistent(void **state)
{
    (void)state;
    char path[64];
    wn_generate_opts o = { .dim = 32, .n_layers = 1, .head_dim = 32, .ffn = 32, .vocab = 25000 };
    wn_gguf *g = generate(path, &o, NULL);
    const wn_gguf_kv *tokens = wn_gguf_find(g, "tokenizer.ggml.tokens"),
                     *merges = wn_gguf_find(g, "tokenizer.ggml.merges");
    assert_int_equal(tokens->n, 25000);
    assert_int_equal(merges->n, 25000 - 259);
    wn_str *sorted = calloc(tokens->n, sizeof *sorted);
    for (uint64_t i = 0; i < tokens->n; i++) sorted[i] = wn_gguf_item_string(tokens, i);
    qsort(sorted, tokens->n, sizeof *sorted, compare_str);
    for (uint64_t i = 1; i < tokens->n; i++)
        assert_true(compare_str(&sorted[i - 1], &sorted[i]) < 0);
    for (uint64_t i = 0; i < merges->n; i++) {
        wn_str m = wn_gguf_item_string(merges, i), token = wn_gguf_item_string(tokens, 256 + i);
        const char *space = memchr(m.p, ' ', m.n);
        assert_non_null(space);
        wn_str left = { m.p, (size_t)(space - m.p) }, right = { space + 1, m.n - left.n - 1 };
        assert_true(left.n && right.n);
        assert_non_null(bsearch(&left, sorted, tokens->n, sizeof left, compare_str));
        assert_non_null(bsearch(&right, sorted, tokens->n, sizeof right, compare_str));
        assert_int_equal(token.n, left.n + right.n);
        assert_memory_equal(token.p, left.p, left.n);
        assert_memory_equal(token.p + left.n, right.p, right.n);
    }
    free(sorted);
    assert_int_equal(number(g, "tokenizer.ggml.eos_token_id"), 24999);
    assert_true(wn_str_is(wn_gguf_item_string(tokens, 24999), "<|im_end|>"));
    wn_gguf_close(g);
    unlink(path);
}

static void impossible_shapes_are_refused(void **state)
{
    (void)state;
    static const wn_generate_opts wrong[] = {
        { .arch = "gpt5" },      { .type = "Q9_X" },     { .n_heads = 4, .n_kv_heads = 3 },
        { .head_dim = 7 },       { .vocab = 100 },       { .dim = -1 },
    };
    wn_err err;
    for (size_t i = 0; i < WN_COUNT(wrong); i++) {
        assert_int_equal(wn_generate("/tmp/winnow-never", &wrong[i], NULL, &err), WN_EINVAL);
        assert_int_equal(access("/tmp/winnow-never", F_OK), -1);
    }
}

/* ---- golden models ---- */

static const char *golden_dir(void)
{
    static const char *const places[] = { "tests/golden", "../shared/golden" };
    for (size_t i = 0; i < WN_COUNT(places); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/llama-f16.gguf", places[i]);
        if (!access(path, R_OK)) return places[i];
    }
    return NULL;
}

static void golden_models_open(void **state)
{
    (void)state;
    char pattern[128];
    glob_t found;
    wn_err err;
    if (!golden_dir()) {
        puts("skipped: no golden models beside the repository");
        skip();
    }
    snprintf(pattern, sizeof pattern, "%s/*.gguf", golden_dir());
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        wn_gguf *g;
        if (wn_gguf_open(&g, found.gl_pathv[i], &err)) fail_msg("%s", err.text);
        read_everything(g);
        assert_non_null(wn_gguf_tensor(g, "token_embd.weight"));
        wn_gguf_close(g);
    }
    globfree(&found);
}

/* Quantised by llama.cpp from llama-f16: a wrong nibble order or scale gives an error near
 * 1.4 of the weights' own size; right ones a few per cent. The bounds are twice what these
 * formats do to normally distributed weights. */
static void golden_blocks_decode_to_their_origin(void **state)
{
    (void)state;
    static const struct { const char *name; } files[] = {
        { "llama-Q8_0" }, { "llama-Q4_0" }, { "llama-Q4_K_M" }, { "llama-Q6_K" },
        { "llama-Q4_1" }, { "llama-Q5_0" }, { "llama-Q5_1" }, { "llama-Q2_K" }, { "llama-Q3_K_M" },
        { "llama-Q5_K_M" },
    };
    static const double bound[WN_TYPE_COUNT] = { [WN_TYPE_F32] = 1e-9, [WN_TYPE_Q8_0] = 0.012,
        [WN_TYPE_Q4_0] = 0.20, [WN_TYPE_Q4_K] = 0.16, [WN_TYPE_Q6_K] = 0.04,
        [WN_TYPE_Q4_1] = 0.16, [WN_TYPE_Q5_0] = 0.10, [WN_TYPE_Q5_1] = 0.08, [WN_TYPE_Q2_K] = 0.66,
        [WN_TYPE_Q3_K] = 0.34, [WN_TYPE_Q5_K] = 0.08 };
    char path[128];
    wn_gguf *origin, *g;
    wn_err err;
    if (!golden_dir()) {
        puts("skipped: no golden models beside the repository");
        skip();
    }
    snprintf(path, sizeof path, "%s/llama-f16.gguf", golden_dir());
    if (wn_gguf_open(&origin, path, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < WN_COUNT(files); i++) {
        snprintf(path, sizeof path, "%s/%s.gguf", golden_dir(), files[i].name);
        if (wn_gguf_open(&g, path, &err)) fail_msg("%s", err.text);
        for (size_t k = 0; k < wn_gguf_n_tensors(g); k++) {
            const wn_tensor *t = wn_gguf_tensor_at(g, k), *o = wn_gguf_tensor(origin, t->name);
            if (!o) continue;               /* an output matrix that was tied */
            size_t n = (size_t)(t->ne[0] * t->ne[1]);
            float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
            double d2 = 0, s2 = 0;
            wn_type_find((uint32_t)t->type)->decode(x, t->data, (int64_t)n);
            wn_type_find((uint32_t)o->type)->decode(y, o->data, (int64_t)n);
            for (size_t e = 0; e < n; e++) {
                d2 += ((double)x[e] - (double)y[e]) * ((double)x[e] - (double)y[e]);
                s2 += (double)y[e] * (double)y[e];
            }
            free(x), free(y);
            if (!(sqrt(d2 / s2) <= bound[t->type]))
                fail_msg("%s %s: relative error %.4f", files[i].name, t->name, sqrt(d2 / s2));
        }
        wn_gguf_close(g);
    }
    wn_gguf_close(origin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_have_the_right_spread),
        cmocka_unit_test(the_seed_alone_decides),
        cmocka_unit_test(architectures_have_their_tensors),
        cmocka_unit_test(the_vocabulary_is_consistent),
        cmocka_unit_test(impossible_shapes_are_refused),
        cmocka_unit_test(golden_models_open),
        cmocka_unit_test(golden_blocks_decode_to_their_origin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
