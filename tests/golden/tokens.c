/* The demo model's vocabulary: ids made by tests/golden/tokens-demo.py (another language,
 * another regular-expression engine, the slow algorithm) must come out exactly, and each
 * text must come back. */
#include "tests/unit/tokenizer/vectors.h"

static void demo_vocabulary(void **state)
{
    const char *model = "models/winnow-demo.gguf";
    wn_gguf *g;
    wn_tokenizer *t;
    (void)state;
    if (access(model, R_OK)) {
        printf("skipped: no %s\n", model);
        skip();
    }
    open_model_file(model, &g, &t);
    assert_int_equal(wn_tokenizer_n_vocab(t), 4096);
    assert_false(wn_tokenizer_add_bos(t));
    assert_true(wn_tokenizer_is_end(t, wn_tokenizer_find(t, "<|im_end|>", 10)));
    assert_int_equal(check_vectors(t, "tests/golden/tokens-demo.txt",
                                   "tests/golden/tokens-demo.ids", "\n__winnow_text__\n"),
                     24);
    wn_tokenizer_close(t);
    wn_gguf_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(demo_vocabulary) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
