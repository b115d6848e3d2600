/* Real vocabularies, with the ids their own tokenizers give: each must come out exactly,
 * and each text must come back. The files belong to others, so they are read from a
 * folder beside the repository where there is one ($WN_SHARED, else ../shared). */
#include "tests/unit/tokenizer/vectors.h"

static void real_vocabulary(void **state)
{
    const char *name = *state, *shared = getenv("WN_SHARED");
    char model[512], texts[512], ids[512];
    wn_gguf *g;
    wn_tokenizer *t;
    if (!shared) shared = "../shared";
    snprintf(model, sizeof model, "%s/tokenizers/%s.gguf", shared, name);
    snprintf(texts, sizeof texts, "%s/tokenizers/%s.txt", shared, name);
    snprintf(ids, sizeof ids, "%s/tokenizers/%s.ids", shared, name);
    if (access(model, R_OK)) {
        printf("skipped: no %s\n", model);
        skip();
    }
    open_model_file(model, &g, &t);
    assert_true(check_vectors(t, texts, ids, "\n__ggml_vocab_test__\n") > 40);
    wn_tokenizer_close(t);
    wn_gguf_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "gpt_2", real_vocabulary, NULL, NULL, "gpt-2" },
        { "llama_bpe", real_vocabulary, NULL, NULL, "llama-bpe" },
        { "qwen2", real_vocabulary, NULL, NULL, "qwen2" },
        { "deepseek_coder", real_vocabulary, NULL, NULL, "deepseek-coder" },
        { "starcoder", real_vocabulary, NULL, NULL, "starcoder" },
        { "llama_spm", real_vocabulary, NULL, NULL, "llama-spm" },
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
