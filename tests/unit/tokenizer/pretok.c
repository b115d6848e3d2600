/* Where each pattern cuts, seen directly: what the real vocabularies' vectors cannot show
 * (the "default" pattern, broken UTF-8, odd white space), and that every name opens. */
#include "tests/unit/check.h"
#include "tokenizer/vocab.h"

#include "base/alloc.h"

typedef struct {
    char out[512];
    size_t n, total;
} list;

static wn_status add_piece(void *ctx, const char *s, size_t n, wn_err *err)
{
    list *l = ctx;
    (void)err;
    assert_true(n > 0 && l->n + n + 1 < sizeof l->out);
    memcpy(l->out + l->n, s, n);
    l->out[l->n + n] = '_';
    l->n += n + 1;
    l->total += n;
    return WN_OK;
}

static wn_status count_bytes(void *ctx, const char *s, size_t n, wn_err *err)
{
    (void)s;
    (void)err;
    *(size_t *)ctx += n;
    return WN_OK;
}

static void check_pieces(const char *name, const char *text, const char *want)
{
    wn_pretok *p;
    list l = { .n = 0 };
    bool whole, bos;
    wn_err err;
    if (wn_pretok_open(&p, (wn_str){ name, strlen(name) }, &whole, &bos, &err))
        fail_msg("%s", err.text);
    assert_int_equal(wn_pretok_cut(p, text, strlen(text), add_piece, &l, NULL), WN_OK);
    assert_int_equal(l.total, strlen(text));
    if (l.n) l.out[l.n - 1] = 0;
    assert_string_equal(l.out, want);
    wn_pretok_close(p);
}

static void each_pattern_cuts_its_way(void **state)
{
    static const char text[] = "I'll PAY'S 12345 (now)!\n\n  ok x";
    (void)state;
    check_pieces("gpt-2", text, "I_'ll_ PAY_'_S_ 12345_ (_now_)!_\n\n _ ok_ x");
    check_pieces("llama-bpe", text, "I_'ll_ PAY_'S_ _123_45_ (_now_)!\n\n_ _ ok_ x");
    check_pieces("smaug-bpe", text, "I_'ll_ PAY_'S_ _123_45_ (_now_)!\n\n_ _ ok_ x");
    check_pieces("qwen2", text, "I_'ll_ PAY_'S_ _1_2_3_4_5_ (_now_)!\n\n_ _ ok_ x");
    check_pieces("starcoder", text, "I_'ll_ PAY_'_S_ _1_2_3_4_5_ (_now_)!_\n\n _ ok_ x");
    check_pieces("deepseek-coder", text, "I_'_ll_ PAY_'_S_ _1_2_3_4_5_ (_now_)!_\n_\n_ _ ok_ x");
    check_pieces("deepseek-llm", text, "I_'_ll_ PAY_'_S_ _12345_ (_now_)!_\n_\n_ _ ok_ x");
    check_pieces("deepseek-llm", "\u00c4\u00aa \u4e2d\uff1f\u0434\U00010400 ",
                 "\u00c4_\u00aa _\u4e2d_\uff1f_\u0434\U00010400_ ");
    check_pieces("default", text, "I_'_ll_ PAY_'_S_ _123_45_ _(_now_)!_\n\n _ ok_ x");
    check_pieces("", text, "I_'_ll_ PAY_'_S_ _123_45_ _(_now_)!_\n\n _ ok_ x");
    check_pieces("default", "a=b <= c^~", "a_=_b_ _<=_ c_^~");
}

/* White space is Unicode's; U+180E is not white any more, U+0085 is. */
static void white_space_is_unicodes(void **state)
{
    (void)state;
    check_pieces("gpt-2", "a\xE2\x80\x83\xC2\xA0" "b\xC2\x85\xC2\x85" "c",
                 "a_\xE2\x80\x83_\xC2\xA0_b_\xC2\x85_\xC2\x85_c");
    check_pieces("gpt-2", "a \xE1\xA0\x8E.", "a_ \xE1\xA0\x8E.");
}

/* Bytes that are no characters stand alone, and text ends before them. */
static void broken_bytes_stand_alone(void **state)
{
    (void)state;
    check_pieces("qwen2", "ab\xFF\xFE" "cd  \xC3", "ab_\xFF_\xFE_cd_  _\xC3");
    check_pieces("qwen2", "\xE2\x82", "\xE2_\x82");
    check_pieces("qwen2", "", "");
}

/* A name nobody knows: the sentence has it and the known ones. */
static void unknown_names_are_told(void **state)
{
    wn_pretok *p;
    bool whole, bos;
    wn_err err = { 0 };
    (void)state;
    assert_int_equal(wn_pretok_open(&p, (wn_str){ "klingon", 7 }, &whole, &bos, &err),
                     WN_EUNSUPPORTED);
    assert_null(p);
    assert_non_null(strstr(err.text, "klingon"));
    assert_non_null(strstr(err.text, "chameleon"));     /* the last of the list: not cut off */
}

/* A word of a megabyte: no pattern runs out of stack or of matches. */
static void long_words(void **state)
{
    static const char *const names[] = { "gpt-4o",       "tekken", "deepseek-v3",
                                         "deepseek-llm", "falcon", "bloom" };
    enum { N = 1 << 20 };
    char *text = malloc(N);
    (void)state;
    assert_non_null(text);
    memset(text, 'a', N);
    for (size_t i = 0; i < WN_COUNT(names); i++) {
        wn_pretok *p;
        bool whole, bos;
        size_t n = 0;
        wn_err err;
        if (wn_pretok_open(&p, (wn_str){ names[i], strlen(names[i]) }, &whole, &bos, &err))
            fail_msg("%s", err.text);
        if (wn_pretok_cut(p, text, N, count_bytes, &n, &err))
            fail_msg("%s: %s", names[i], err.text);
        assert_int_equal(n, N);
        wn_pretok_close(p);
    }
    free(text);
}

static void every_name_opens(void **state)
{
    static const char *const names[] = {
        "default", "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "gigachat", "roberta-bpe",
        "exaone4", "trillion", "granite-docling", "a.x-4.0", "mellum", "modern-bert", "jina-es",
        "jina-de", "jina-v2-es", "jina-v2-de", "jina-v2-code", "llama-bpe", "llama3", "llama-v3",
        "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0", "jina-v5-nano", "smaug-bpe",
        "dbrx", "glm4", "chatglm-bpe", "qwen2", "qwen25", "qwen3", "deepseek-r1-qwen", "megrez",
        "stablelm2", "kormo", "hunyuan", "solar-open", "grok-2", "f2llmv2", "qwen35", "jais-2",
        "minicpm5", "laguna", "ufakzeka", "seed-coder", "bailingmoe", "bailingmoe2", "llada-moe",
        "exaone-moe", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "tekken", "kimi-k2",
        "youtu", "deepseek-llm", "deepseek-coder", "deepseek-v3", "hunyuan-dense", "joyai-llm",
        "hy_v4", "spark2_5", "falcon", "starcoder", "smollm", "refact", "command-r", "codeshell",
        "exaone", "minerva-7b", "mellum2", "poro-chat", "bloom", "gpt3-finnish", "viking",
        "chameleon",
    };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(names); i++) check_pieces(names[i], "x", "x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pattern_cuts_its_way),
        cmocka_unit_test(white_space_is_unicodes),
        cmocka_unit_test(broken_bytes_stand_alone),
        cmocka_unit_test(every_name_opens),
        cmocka_unit_test(unknown_names_are_told),
        cmocka_unit_test(long_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
