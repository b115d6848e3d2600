/* Perplexity of a text by `winnow eval` against llama.cpp's tool, and against a plain double
 * computation over the logits of one sequence per chunk.
 *
 * Golden number: llama-perplexity of llama.cpp (release 0.5.0 of its tools), `-m
 * models/winnow-demo.gguf -f models/aschenputtel.txt -c 512 -b 512 -ctk f32 -ctv f32 -fa off`,
 * which cuts the text into chunks of 512 tokens and counts the second half of each: 18.2856
 * over 5 chunks. The bound is half a percent; what is seen is 0.003 %.
 */
#include "tests/unit/check.h"

#include "eval/eval.h"
#include "eval/stats.h"

#include <math.h>

static const double LLAMA_CPP = 18.2856;

static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 16);
    assert_non_null(f);
    *n = fread(text, 1, (1 << 16) - 1, f);
    fclose(f);
    return text;
}

typedef struct { const int32_t *ids; double sum; int n, n_vocab; } plain;

static void add_nll(void *ctx, int pos, const float *logits)
{
    plain *p = ctx;
    if (pos < 256 || pos == 511) return;
    double z = 0;
    for (int i = 0; i < p->n_vocab; i++) z += exp((double)logits[i]);
    p->sum += log(z) - (double)logits[p->ids[pos + 1]];
    p->n++;
}

static void agrees_with_llama_cpp(void **state)
{
    (void)state;
    wn_model *m;
    wn_engine *e;
    wn_seq *s;
    wn_err err;
    wn_eval_report r;
    wn_model_info mi;
    size_t n_text, n_ids;
    int32_t *ids;
    char *text = read_file("models/aschenputtel.txt", &n_text);
    assert_int_equal(wn_model_open(&m, "models/winnow-demo.gguf", NULL, &err), WN_OK);
    wn_model_get_info(m, &mi);
    wn_eval_opts o = { .context = 512, .text = text, .n_text = n_text, .max_chunks = -1 };
    if (wn_eval_run(&r, m, &o, &err)) fail_msg("%s", err.text);
    assert_int_equal(r.n_chunks, 5);
    if (fabs(r.rows[0].ppl / LLAMA_CPP - 1) > 0.005)
        fail_msg("perplexity %.4f, llama.cpp %.4f", r.rows[0].ppl, LLAMA_CPP);
    printf("perplexity %.4f, llama.cpp %.4f (%+.4f %%)\n", r.rows[0].ppl, LLAMA_CPP,
           100 * (r.rows[0].ppl / LLAMA_CPP - 1));

    plain p = { .n_vocab = mi.n_vocab };
    assert_int_equal(wn_tokens_from_text(m, text, n_text, 0, &ids, &n_ids, &err), WN_OK);
    assert_int_equal(wn_engine_open(&e, m, &(wn_engine_opts){ .n_ctx = 512 }, &err), WN_OK);
    for (int c = 0; c < 5; c++) {
        p.ids = ids + c * 512;
        assert_int_equal(wn_seq_open(&s, e, &(wn_seq_opts){ .on_logits = add_nll,
                                                            .on_logits_ctx = &p }, &err), WN_OK);
        assert_int_equal(wn_seq_feed(s, p.ids, 512, &err), WN_OK);
        for (int rows = 1; rows > 0;) assert_int_equal(wn_engine_step(e, &rows, &err), WN_OK);
        wn_seq_close(s);
    }
    assert_int_equal(p.n, 5 * 255);
    assert_true(fabs(exp(p.sum / p.n) / r.rows[0].ppl - 1) < 1e-12);
    wn_eval_report_release(&r);
    wn_tokens_free(ids);
    free(text);
    wn_engine_close(e);
    wn_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(agrees_with_llama_cpp) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
