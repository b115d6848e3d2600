/* A real file, damaged: cut at any byte, bits flipped anywhere in the header, numbers of
 * the header replaced by extreme ones. Each result is either a sentence or a model whose
 * every byte can be read; sanitizer builds watch the edges. */
#include "tests/unit/check.h"

#include <unistd.h>

#include "gguf/generate.h"
#include "tests/support/gguf_bytes.h"

static uint8_t *file;               /* a generated model */
static size_t file_bytes, header_bytes;

static int make_file(void **state)
{
    (void)state;
    char path[] = "/tmp/winnow-damage-XXXXXX";
    wn_generate_opts o = { .dim = 64, .n_layers = 2, .head_dim = 32, .n_kv_heads = 1, .ffn = 64,
                           .vocab = 300, .type = "Q8_0", .rope_freqs = true };
    wn_gguf *g;
    wn_err err;
    close(mkstemp(path));
    if (wn_generate(path, &o, NULL, &err) || wn_gguf_open(&g, path, &err)) {
        print_message("%s\n", err.text);
        return 1;
    }
    header_bytes = wn_gguf_tensor_at(g, 0)->offset;
    file_bytes = wn_gguf_file_bytes(g);
    file = malloc(file_bytes);
    FILE *f = fopen(path, "rb");
    size_t n = file && f ? fread(file, 1, file_bytes, f) : 0;
    if (f) fclose(f);
    wn_gguf_close(g);
    unlink(path);
    return n != file_bytes;
}

static int drop_file(void **state)
{
    (void)state;
    free(file);
    return 0;
}

/* Opens n bytes of p from a block of exactly that size. Returns the status. */
static wn_status try_bytes(const uint8_t *p, size_t n)
{
    wn_gguf *g;
    wn_err err = { 0 };
    uint8_t *exact = malloc(n ? n : 1);
    assert_non_null(exact);
    if (n) memcpy(exact, p, n);
    wn_status st = wn_gguf_open_memory(&g, exact, n, &err);
    if (st) {
        assert_true(st == WN_EFORMAT || st == WN_EUNSUPPORTED);     /* not: out of memory */
        assert_true(strlen(err.text) > 10);
        for (const char *c = err.text; *c; c++) assert_true((unsigned char)*c >= 0x20);
        assert_null(g);
    } else {
        read_everything(g);
    }
    wn_gguf_close(g);
    free(exact);
    return st;
}

static void the_file_itself_is_fine(void **state)
{
    (void)state;
    assert_int_equal(try_bytes(file, file_bytes), WN_OK);
}

static void cut_anywhere_is_refused(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (int i = 0; i < 200; i++) {
        size_t n = (size_t)(test_rand(&seed) % file_bytes);
        if (try_bytes(file, n) == WN_OK) fail_msg("%zu of %zu bytes opened", n, file_bytes);
    }
    for (size_t n = 0; n < 1000; n++) assert_int_equal(try_bytes(file, n), WN_EFORMAT);
}

static void flipped_bits_never_crash(void **state)
{
    (void)state;
    uint64_t seed = 8;
    uint8_t *copy = malloc(file_bytes);
    for (int i = 0; i < 3000; i++) {
        memcpy(copy, file, file_bytes);
        for (int k = 1 + (int)(test_rand(&seed) % 4); k > 0; k--)
            copy[test_rand(&seed) % header_bytes] ^= (uint8_t)(1u << (test_rand(&seed) % 8));
        try_bytes(copy, file_bytes);
    }
    free(copy);
}

/* Every 8-byte field of the first and last 600 header bytes in turn becomes an extreme number. */
static void extreme_numbers_never_crash(void **state)
{
    (void)state;
    static const uint64_t extremes[] = { 0, 1, 0x7fffffff, 0xffffffff, (uint64_t)1 << 32,
                                         INT64_MAX, (uint64_t)1 << 63, UINT64_MAX - 7, UINT64_MAX };
    uint8_t *copy = malloc(file_bytes);
    for (size_t at = 4; at + 8 <= header_bytes; at += at == 600 ? header_bytes - 1208 : 1)
        for (size_t k = 0; k < WN_COUNT(extremes); k++) {
            memcpy(copy, file, file_bytes);
            memcpy(copy + at, &extremes[k], 8);
            try_bytes(copy, file_bytes);
        }
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_itself_is_fine),
        cmocka_unit_test(cut_anywhere_is_refused),
        cmocka_unit_test(flipped_bits_never_crash),
        cmocka_unit_test(extreme_numbers_never_crash),
    };
    return cmocka_run_group_tests(tests, make_file, drop_file);
}
