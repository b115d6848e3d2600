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

static void check_pieces(const char *name, const char *text, const char *want)
{
    wn_pretok *p;
    list l = { .n = 0 };
    bool whole, bos;
    wn_err err;
    if (wn_pretok_open(&p, (wn_str){ name, strlen(name) }, &whole, &bos, &err)) fail_msg("%s", err.text);
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

static void every_name_opens(void **state)
{
    static const char *const names[] = {
        "default", "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "gigachat", "roberta-bpe",
        "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0",
        "smaug-bpe", "dbrx", "qwen2", "qwen25", "qwen3", "deepseek-r1-qwen", "megrez", "stablelm2",
        "kormo", "deepseek-coder", "starcoder", "smollm", "refact", "command-r", "codeshell",
        "exaone", "minerva-7b",
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
