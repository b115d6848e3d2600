/* tests/support/engine.c - see engine.h. */
#include "tests/support/engine.h"
#include "tests/support/calibration.h"
#include "tests/support/profile.h"
#include "tests/unit/check.h"

#include "gguf/generate.h"

#include <unistd.h>

enum { MAX_MODELS = 32 };
static struct { char key[64], path[128]; } made[MAX_MODELS];
static int n_made;

static void remove_models(void)
{
    for (int i = 0; i < n_made; i++) unlink(made[i].path);
}

static void must(wn_status st, const wn_err *err, const char *what)
{
    if (st != WN_OK) fail_msg("%s: %s", what, err->text);
}

/* The file of the model of this name, made at the first call. */
static const char *model_path(const char *key, const wn_generate_opts *o)
{
    wn_err err = { 0 };
    for (int i = 0; i < n_made; i++)
        if (!strcmp(made[i].key, key)) return made[i].path;
    assert_true(n_made < MAX_MODELS);
    int k = n_made;
    char name[32];
    snprintf(name, sizeof name, "%d.gguf", k);
    test_path(made[k].path, sizeof made[k].path, name);
    snprintf(made[k].key, sizeof made[k].key, "%s", key);
    must(wn_generate(made[k].path, o, NULL, &err), &err, "generate");
    if (n_made++ == 0) atexit(remove_models);
    return made[k].path;
}

const char *test_model_path(const char *arch, const char *type)
{
    char key[64];
    snprintf(key, sizeof key, "%s-%s", arch, type);
    return model_path(key,
                      &(wn_generate_opts){
                          .arch = arch,
                          .type = type,
                          .dim = 256,
                          .n_layers = 2,
                          .n_heads = 4,
                          .n_kv_heads = 2,
                          .head_dim = 64,
                          .ffn = 512,
                          .vocab = 320,
                          .n_ctx = 4096,
                          .seed = 7,
                          .window = strcmp(arch, "gemma2") && strcmp(arch, "gpt-oss") ? 0 : 100 });
}

const char *test_tiny_model_path(void)
{
    return model_path("tiny", &(wn_generate_opts){ .arch = "llama", .type = "F32", .dim = 32,
                                                   .n_layers = 2, .n_heads = 4, .n_kv_heads = 2,
                                                   .head_dim = 16, .ffn = 32, .vocab = 320,
                                                   .n_ctx = 4096, .seed = 7 });
}

const char *test_long_model_path(void)
{
    return model_path("long", &(wn_generate_opts){ .arch = "llama", .type = "F32", .dim = 64,
                                                   .n_layers = 1, .n_heads = 4, .n_kv_heads = 2,
                                                   .head_dim = 64, .ffn = 64, .vocab = 320,
                                                   .n_ctx = 8192 + 64, .seed = 7 });
}

test_engine test_engine_open(const char *path, wn_engine_opts opts)
{
    test_engine t = { 0 };
    wn_model_info mi;
    wn_err err = { 0 };
    must(wn_model_open(&t.m, path, &(wn_model_opts){ .n_threads = 2 }, &err), &err, "model");
    if (!opts.n_ctx) opts.n_ctx = 2048;
    if (!opts.n_threads) opts.n_threads = 2;
    must(wn_engine_open(&t.e, t.m, &opts, &err), &err, "engine");
    wn_model_get_info(t.m, &mi);
    t.n_vocab = mi.n_vocab;
    t.profile = test_profile(mi.n_layers, mi.n_heads, t.m->map.n_lanes, (const uint8_t[16]){ 0 });
    wn_engine_lend_profile(t.e, t.profile);
    wn_lane_dims *dims = calloc((size_t)t.m->map.n_lanes, sizeof *dims);
    assert_non_null(dims);
    wn_engine_lane_dims(t.m, dims);
    t.calibration = test_calibration(dims, t.m->map.n_lanes, (const uint8_t[16]){ 0 }, 7);
    wn_engine_lend_calibration(t.e, t.calibration);
    free(dims);
    return t;
}

void test_engine_close(test_engine *t)
{
    wn_engine_close(t->e);
    wn_model_close(t->m);
    wn_profile_close(t->profile);
    wn_calibration_close(t->calibration);
}

static void collect(void *ctx, int pos, const float *logits)
{
    test_seq *q = ctx;
    memcpy(q->logits + (size_t)pos * (size_t)q->n_vocab, logits,
           sizeof(float) * (size_t)q->n_vocab);
    if (pos + 1 > q->n_seen) q->n_seen = pos + 1;
}

test_seq test_seq_open(test_engine *t, int max_tokens)
{
    return test_seq_open_kv(t, max_tokens, NULL);
}

test_seq test_seq_open_kv(test_engine *t, int max_tokens, const char *kv)
{
    test_seq q = { .n_vocab = t->n_vocab };
    q.logits = calloc((size_t)max_tokens * (size_t)t->n_vocab, sizeof(float));
    assert_non_null(q.logits);
    wn_err err = { 0 };
    must(wn_seq_open(&q.s, t->e, &(wn_seq_opts){ .max_tokens = max_tokens, .on_logits = collect,
                                                 .kv = kv }, &err), &err,
         "sequence");
    return q;
}

void test_seq_close(test_seq *q)
{
    wn_seq_close(q->s);
    free(q->logits);
}

void test_steps(test_engine *t)
{
    int rows;
    wn_err err = { 0 };
    do must(wn_engine_step(t->e, &rows, &err), &err, "step");
    while (rows > 0);
}

void test_seq_run(test_engine *t, test_seq *q, const int32_t *ids, int n)
{
    wn_err err = { 0 };
    q->s->opts.on_logits_ctx = q;       /* the test_seq may have been copied since it was opened */
    must(wn_seq_feed(q->s, ids, (size_t)n, &err), &err, "feed");
    test_steps(t);
}

void test_tokens(int32_t *ids, int n, int n_vocab, uint64_t seed)
{
    for (int i = 0; i < n; i++) ids[i] = (int32_t)(test_rand(&seed) % (uint64_t)n_vocab);
}

void test_same_logits(const char *what, const float *a, const float *b, int n, int n_vocab)
{
    for (int p = 0; p < n; p++)
        for (int i = 0; i < n_vocab; i++) {
            size_t at = (size_t)p * (size_t)n_vocab + (size_t)i;
            if (memcmp(&a[at], &b[at], sizeof(float)))
                fail_msg("%s: logit %d at position %d is %.9g, was %.9g", what, i, p, (double)a[at],
                         (double)b[at]);
        }
}
