/* The reader says exactly what a file says: every value type, arrays, alignment, versions,
 * parts; and it refuses, with a sentence that names the culprit, what a file may not say. */
#include "tests/unit/check.h"

#include <unistd.h>

#include "base/alloc.h"
#include "gguf/write.h"
#include "tests/support/gguf_bytes.h"

/* The bytes must be refused, with the words in the sentence. */
static void refused(bytes *b, const char *words)
{
    wn_gguf *g;
    wn_err err = { 0 };
    uint8_t *exact = malloc(b->n ? b->n : 1);       /* its end is where a sanitizer watches */
    if (b->n) memcpy(exact, b->p, b->n);
    wn_status st = wn_gguf_open_memory(&g, exact, b->n, &err);
    if (st != WN_EFORMAT || !strstr(err.text, words)) {
        print_message("expected \"%s\", got %s: \"%s\"\n", words, wn_status_name(st), err.text);
        fail();
    }
    assert_null(g);
    free(exact);
    free(b->p);
    *b = (bytes){ 0 };
}

static wn_gguf *accepted(const bytes *b)
{
    wn_gguf *g;
    wn_err err;
    if (wn_gguf_open_memory(&g, b->p, b->n, &err)) {
        print_message("%s\n", err.text);
        fail();
    }
    return g;
}

/* ---- values ---- */

static void every_value_type_reads_back(void **state)
{
    (void)state;
    bytes b = { 0 };
    int64_t v = 0;
    double f = 0;
    bool t = false;
    wn_str s;
    wn_err err;
    put_front(&b, 3, 0, 14);
    put_key(&b, "u8", WN_KV_U8), put_bytes(&b, &(uint8_t){ 200 }, 1);
    put_key(&b, "i8", WN_KV_I8), put_bytes(&b, &(int8_t){ -100 }, 1);
    put_key(&b, "u16", WN_KV_U16), put_bytes(&b, &(uint16_t){ 60000 }, 2);
    put_key(&b, "i16", WN_KV_I16), put_bytes(&b, &(int16_t){ -30000 }, 2);
    put_key(&b, "u32", WN_KV_U32), put_u32(&b, 4000000000u);
    put_key(&b, "i32", WN_KV_I32), put_bytes(&b, &(int32_t){ -2000000000 }, 4);
    put_key(&b, "u64", WN_KV_U64), put_u64(&b, (uint64_t)1 << 62);
    put_key(&b, "i64", WN_KV_I64), put_bytes(&b, &(int64_t){ INT64_MIN }, 8);
    put_key(&b, "huge", WN_KV_U64), put_u64(&b, UINT64_MAX);
    put_key(&b, "f32", WN_KV_F32), put_bytes(&b, &(float){ 1.5f }, 4);
    put_key(&b, "f64", WN_KV_F64), put_bytes(&b, &(double){ -2.25 }, 8);
    put_key(&b, "inf", WN_KV_F32), put_bytes(&b, &(uint32_t){ 0x7f800000 }, 4);
    put_key(&b, "bool", WN_KV_BOOL), put_bytes(&b, "\1", 1);
    put_key(&b, "string", WN_KV_STRING), put_text(&b, "text");
    wn_gguf *g = accepted(&b);
    static const struct { const char *key; int64_t value; } ints[] = {
        { "u8", 200 }, { "i8", -100 }, { "u16", 60000 }, { "i16", -30000 }, { "u32", 4000000000 },
        { "i32", -2000000000 }, { "u64", (int64_t)1 << 62 }, { "i64", INT64_MIN },
    };
    for (size_t i = 0; i < WN_COUNT(ints); i++) {
        assert_int_equal(wn_gguf_int(g, ints[i].key, true, INT64_MIN, INT64_MAX, &v, &err), WN_OK);
        assert_true(v == ints[i].value);
    }
    assert_int_equal(wn_gguf_int(g, "huge", true, 0, INT64_MAX, &v, &err), WN_EFORMAT);
    assert_int_equal(wn_gguf_int(g, "u8", true, 0, 199, &v, &err), WN_EFORMAT);
    assert_non_null(strstr(err.text, "u8"));
    assert_int_equal(wn_gguf_int(g, "f32", true, 0, 9, &v, &err), WN_EFORMAT);
    assert_int_equal(wn_gguf_int(g, "bool", true, 0, 9, &v, &err), WN_EFORMAT);
    assert_int_equal(wn_gguf_float(g, "f32", true, &f, &err), WN_OK);
    assert_true(f == 1.5);
    assert_int_equal(wn_gguf_float(g, "f64", true, &f, &err), WN_OK);
    assert_true(f == -2.25);
    assert_int_equal(wn_gguf_float(g, "i8", true, &f, &err), WN_OK);
    assert_true(f == -100);
    assert_int_equal(wn_gguf_float(g, "inf", true, &f, &err), WN_EFORMAT);
    assert_int_equal(wn_gguf_float(g, "string", true, &f, &err), WN_EFORMAT);
    assert_int_equal(wn_gguf_bool(g, "bool", true, &t, &err), WN_OK);
    assert_true(t);
    assert_int_equal(wn_gguf_bool(g, "u8", true, &t, &err), WN_EFORMAT);
    assert_int_equal(wn_gguf_string(g, "string", true, &s, &err), WN_OK);
    assert_true(wn_str_is(s, "text") && !wn_str_is(s, "tex") && !wn_str_is(s, "texts"));
    assert_int_equal(wn_gguf_string(g, "bool", true, &s, &err), WN_EFORMAT);
    v = 7;
    assert_int_equal(wn_gguf_int(g, "absent", false, 0, 1, &v, &err), WN_OK);
    assert_int_equal(v, 7);
    assert_int_equal(wn_gguf_int(g, "absent", true, 0, 1, &v, &err), WN_EFORMAT);
    assert_non_null(strstr(err.text, "absent"));
    read_everything(g);
    wn_gguf_close(g);
    free(b.p);
}

static void arrays_of_every_type_read_back(void **state)
{
    (void)state;
    bytes b = { 0 };
    put_front(&b, 2, 0, 6);
    put_array(&b, "strings", WN_KV_STRING, 3), put_text(&b, "one"), put_text(&b, ""),
        put_text(&b, "three");
    put_array(&b, "i16", WN_KV_I16, 2), put_bytes(&b, (int16_t[]){ -5, 9 }, 4);
    put_array(&b, "f64", WN_KV_F64, 2), put_bytes(&b, (double[]){ 0.5, -8 }, 16);
    put_array(&b, "bool", WN_KV_BOOL, 2), put_bytes(&b, "\0\1", 2);
    put_array(&b, "none", WN_KV_STRING, 0);
    put_array(&b, "u64", WN_KV_U64, 1), put_u64(&b, UINT64_MAX);
    wn_gguf *g = accepted(&b);
    const wn_gguf_kv *kv = wn_gguf_find(g, "strings");
    assert_int_equal(wn_gguf_version(g), 2);
    assert_int_equal(kv->n, 3);
    assert_true(wn_str_is(wn_gguf_item_string(kv, 2), "three"));
    assert_true(wn_str_is(wn_gguf_item_string(kv, 1), ""));
    assert_true(wn_str_is(wn_gguf_item_string(kv, 0), "one"));
    assert_int_equal(wn_gguf_item_int(wn_gguf_find(g, "i16"), 0), -5);
    assert_true(wn_gguf_item_float(wn_gguf_find(g, "i16"), 1) == 9);
    assert_true(wn_gguf_item_float(wn_gguf_find(g, "f64"), 1) == -8);
    assert_int_equal(wn_gguf_item_int(wn_gguf_find(g, "bool"), 1), 1);
    assert_int_equal(wn_gguf_find(g, "none")->n, 0);
    assert_true(wn_gguf_item_int(wn_gguf_find(g, "u64"), 0) == INT64_MAX);
    read_everything(g);
    wn_gguf_close(g);
    free(b.p);
}

static void wrong_values_are_refused(void **state)
{
    (void)state;
    bytes b = { 0 };
    refused(&b, "the magic");
    put_bytes(&b, "GGUF", 4), refused(&b, "the version");
    put_bytes(&b, "GGML", 4), put_zeros(&b, 60), refused(&b, "not a GGUF file");
    put_front(&b, 1, 0, 0), refused(&b, "version 1");
    put_front(&b, 4, 0, 0), refused(&b, "version 4");
    put_front(&b, 0x03000000, 0, 0), refused(&b, "big-endian");
    put_front(&b, 3, 0, UINT64_MAX), put_zeros(&b, 100),
        refused(&b, "counts 18446744073709551615 keys");
    put_front(&b, 3, UINT64_MAX, 0), put_zeros(&b, 100),
        refused(&b, "counts 18446744073709551615 tensors");
    put_front(&b, 3, 0, (1 << 18) + 1), put_zeros(&b, 14 << 19),
        refused(&b, "262145 keys (at most 262144");
    put_front(&b, 3, (1 << 20) + 1, 0), put_zeros(&b, 34 << 20),
        refused(&b, "1048577 tensors (at most");
    put_front(&b, 3, 0, 1), put_u64(&b, UINT64_MAX), put_zeros(&b, 20), refused(&b, "ends early");
    put_front(&b, 3, 0, 1), put_key(&b, "", WN_KV_U8), put_zeros(&b, 8),
        refused(&b, "name of 0 bytes");
    put_front(&b, 3, 0, 1), put_key(&b, "a\033[2Jb", WN_KV_U8), put_zeros(&b, 8),
        refused(&b, "control character");
    put_front(&b, 3, 0, 1), put_key(&b, "a\xc2\x9bJ", WN_KV_U8), put_zeros(&b, 8),
        refused(&b, "(0x9b)");
    put_front(&b, 3, 0, 1), put_key(&b, "odd", 13), put_zeros(&b, 8),
        refused(&b, "key odd: unknown type 13");
    put_front(&b, 3, 0, 1), put_key(&b, "odd", WN_KV_BOOL), put_bytes(&b, "\2", 1),
        put_zeros(&b, 8);
    refused(&b, "key odd: a bool is 2");
    put_front(&b, 3, 0, 1), put_key(&b, "long", WN_KV_STRING), put_u64(&b, (uint64_t)1 << 40),
        put_zeros(&b, 8);
    refused(&b, "key long");
    put_front(&b, 3, 0, 1), put_array(&b, "deep", WN_KV_ARRAY, 1), put_zeros(&b, 30),
        refused(&b, "arrays of arrays");
    put_front(&b, 3, 0, 1), put_array(&b, "odd", 99, 1), put_zeros(&b, 30),
        refused(&b, "unknown type 99");
    put_front(&b, 3, 0, 1), put_array(&b, "big", WN_KV_F64, UINT64_MAX / 8 + 2), put_zeros(&b, 30),
        refused(&b, "key big");
    put_front(&b, 3, 0, 1), put_array(&b, "big", WN_KV_STRING, (uint64_t)1 << 61),
        put_zeros(&b, 30), refused(&b, "key big");
    put_front(&b, 3, 0, 1), put_array(&b, "big", WN_KV_STRING, 2), put_text(&b, "x"),
        put_u64(&b, 9), put_zeros(&b, 3);
    refused(&b, "key big: element 1");
    put_front(&b, 3, 0, 2), put_key(&b, "twice", WN_KV_U8), put_zeros(&b, 1),
        put_key(&b, "twice", WN_KV_U8), put_zeros(&b, 1);
    refused(&b, "twice appears twice");
}

static void wrong_alignments_are_refused(void **state)
{
    (void)state;
    static const uint32_t wrong[] = { 0, 1, 4, 12, 24, 33, 0xffffffff };
    bytes b = { 0 };
    for (size_t i = 0; i < WN_COUNT(wrong); i++) {
        put_front(&b, 3, 0, 1);
        put_key(&b, "general.alignment", WN_KV_U32), put_u32(&b, wrong[i]);
        refused(&b, "general.alignment");
    }
    put_front(&b, 3, 0, 1), put_key(&b, "general.alignment", WN_KV_STRING), put_text(&b, "32");
    refused(&b, "general.alignment");
}

/* ---- tensors ---- */

/* A header with one tensor and then `data` bytes. */
static bytes one_tensor(uint32_t n_dims, const uint64_t *ne, uint32_t type, uint64_t offset,
                        size_t data)
{
    bytes b = { 0 };
    put_front(&b, 3, 1, 0);
    put_tensor(&b, "w", n_dims, ne, type, offset);
    pad_to(&b, 32);
    put_zeros(&b, data);
    return b;
}

static void wrong_tensors_are_refused(void **state)
{
    (void)state;
    const uint64_t half = (uint64_t)1 << 32;
    bytes b;
    b = one_tensor(1, (uint64_t[]){ 32 }, WN_TYPE_Q8_0, 0, 34);
    wn_gguf *g = accepted(&b);
    assert_int_equal(wn_gguf_tensor(g, "w")->bytes, 34);
    assert_null(wn_gguf_tensor(g, "v"));
    read_everything(g);
    wn_gguf_close(g);
    b.n--, refused(&b, "tensor w: 34 bytes at offset 0 of the data, which has 33");
    b = one_tensor(1, (uint64_t[]){ 31 }, WN_TYPE_Q8_0, 0, 99), refused(&b, "tensor w: rows of 31");
    b = one_tensor(2, (uint64_t[]){ 64, 0 }, WN_TYPE_F32, 0, 99), refused(&b, "dimension 1 is 0");
    b = one_tensor(1, (uint64_t[]){ UINT64_MAX }, WN_TYPE_I8, 0, 99), refused(&b, "dimension 0");
    b = one_tensor(0, NULL, WN_TYPE_F32, 0, 99), refused(&b, "0 dimensions");
    b = one_tensor(5, (uint64_t[]){ 1, 1, 1, 1, 1 }, WN_TYPE_F32, 0, 99),
    refused(&b, "5 dimensions");
    b = one_tensor(1, (uint64_t[]){ 8 }, 4, 0, 99), refused(&b, "unknown type 4");
    b = one_tensor(1, (uint64_t[]){ 8 }, UINT32_MAX, 0, 99), refused(&b, "unknown type 4294967295");
    b = one_tensor(1, (uint64_t[]){ 8 }, WN_TYPE_F32, 16, 99), refused(&b, "not a multiple of 32");
    b = one_tensor(1, (uint64_t[]){ 8 }, WN_TYPE_F32, 96, 96), refused(&b, "at offset 96");
    b = one_tensor(1, (uint64_t[]){ 8 }, WN_TYPE_F32, UINT64_MAX - 31, 96), refused(&b, "tensor w");
    b = one_tensor(4, (uint64_t[]){ half, half, half, half }, WN_TYPE_F32, 0, 96),
    refused(&b, "too many");
    b = one_tensor(2, (uint64_t[]){ (uint64_t)1 << 60, 16 }, WN_TYPE_F32, 0, 96),
    refused(&b, "too many");
    b = one_tensor(1, (uint64_t[]){ INT64_MAX / 32 * 32 }, WN_TYPE_Q8_0, 0, 96),
    refused(&b, "too many");
}

static void tensors_may_not_share(void **state)
{
    (void)state;
    bytes b = { 0 };
    put_front(&b, 3, 2, 0);
    put_tensor(&b, "a", 1, (uint64_t[]){ 16 }, WN_TYPE_F32, 0);
    put_tensor(&b, "b", 1, (uint64_t[]){ 16 }, WN_TYPE_F32, 32);
    pad_to(&b, 32), put_zeros(&b, 200), refused(&b, "tensor b overlaps tensor a");
    put_front(&b, 3, 2, 0);
    put_tensor(&b, "a", 1, (uint64_t[]){ 8 }, WN_TYPE_F32, 0);
    put_tensor(&b, "a", 1, (uint64_t[]){ 8 }, WN_TYPE_F32, 32);
    pad_to(&b, 32), put_zeros(&b, 200), refused(&b, "tensor a appears twice");
    put_front(&b, 3, 1, 0);
    put_tensor(&b, "a\n", 1, (uint64_t[]){ 8 }, WN_TYPE_F32, 0);
    pad_to(&b, 32), put_zeros(&b, 200), refused(&b, "control character");
}

/* ---- writing, files, parts ---- */

static void what_is_written_reads_back(void **state)
{
    (void)state;
    char path[] = "/tmp/winnow-gguf-XXXXXX";
    wn_gguf_writer *w;
    wn_gguf *g;
    wn_err err;
    float x[64];
    uint8_t q[34 * 2];
    double f;
    close(mkstemp(path));
    for (int i = 0; i < 64; i++) x[i] = (float)i;
    wn_type_find(WN_TYPE_Q8_0)->encode(q, x, 64);
    assert_int_equal(wn_gguf_writer_open(&w, path, &err), WN_OK);
    wn_gguf_put_u32(w, "general.alignment", 4096);
    wn_gguf_put_f32(w, "f", 0.25f);
    wn_gguf_put_strings(w, "s", (const char *const[]){ "x", "yy" }, 2);
    wn_gguf_put_tensor(w, "a", WN_TYPE_Q8_0, 2, (int64_t[]){ 32, 2 });
    wn_gguf_put_tensor(w, "b", WN_TYPE_F32, 1, (int64_t[]){ 64 });
    assert_int_equal(wn_gguf_writer_data(w, q, 34, &err), WN_OK);       /* in two halves */
    assert_int_equal(wn_gguf_writer_data(w, q + 34, 34, &err), WN_OK);
    assert_int_equal(wn_gguf_writer_data(w, x, sizeof x, &err), WN_OK);
    assert_int_equal(wn_gguf_writer_close(w, &err), WN_OK);
    assert_int_equal(wn_gguf_open(&g, path, &err), WN_OK);
    assert_int_equal(wn_gguf_alignment(g), 4096);
    assert_int_equal(wn_gguf_float(g, "f", true, &f, &err), WN_OK);
    assert_true(f == 0.25);
    assert_true(wn_str_is(wn_gguf_item_string(wn_gguf_find(g, "s"), 1), "yy"));
    const wn_tensor *a = wn_gguf_tensor(g, "a"), *b = wn_gguf_tensor(g, "b");
    assert_int_equal(a->n_dims, 2);
    assert_int_equal(a->ne[1], 2);
    assert_int_equal(a->ne[2], 1);
    assert_memory_equal(a->data, q, sizeof q);
    assert_memory_equal(b->data, x, sizeof x);
    assert_int_equal(b->offset % 4096, 0);
    wn_gguf_release_pages(g, b, 0, b->bytes);
    assert_memory_equal(b->data, x, sizeof x);      /* released pages come back from the file */
    wn_gguf_close(g);
    unlink(path);
}

static void an_incomplete_file_is_an_error_and_goes(void **state)
{
    (void)state;
    char path[] = "/tmp/winnow-gguf-XXXXXX";
    wn_gguf_writer *w;
    wn_err err;
    close(mkstemp(path));
    assert_int_equal(wn_gguf_writer_open(&w, path, &err), WN_OK);
    wn_gguf_put_tensor(w, "a", WN_TYPE_F32, 1, (int64_t[]){ 8 });
    assert_int_equal(wn_gguf_writer_data(w, "0123456789abcdef", 16, &err), WN_OK);
    assert_int_equal(wn_gguf_writer_close(w, &err), WN_EINVAL);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(wn_gguf_writer_open(&w, path, &err), WN_OK);
    wn_gguf_put_tensor(w, "a", WN_TYPE_Q4_K, 1, (int64_t[]){ 100 });    /* not whole blocks */
    assert_int_equal(wn_gguf_writer_close(w, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "tensor a"));
    assert_int_equal(access(path, F_OK), -1);
}

/* A set of parts in a directory of their own: part i has tensor "t<i>" of i + 1 rows. */
static void write_part(const char *dir, int i, int n, int says_no, int says_count, int n_tensors)
{
    char path[256], name[16];
    float x[64] = { (float)i };
    wn_gguf_writer *w;
    wn_err err;
    snprintf(path, sizeof path, "%s/m-%05d-of-%05d.gguf", dir, i + 1, n);
    snprintf(name, sizeof name, "t%d", i);
    assert_int_equal(wn_gguf_writer_open(&w, path, &err), WN_OK);
    wn_gguf_put_u16(w, "split.no", (uint16_t)says_no);
    wn_gguf_put_u16(w, "split.count", (uint16_t)says_count);
    wn_gguf_put_u32(w, "split.tensors.count", (uint32_t)n_tensors);
    if (i == 0) wn_gguf_put_string(w, "general.architecture", "llama");
    wn_gguf_put_tensor(w, name, WN_TYPE_F32, 2, (int64_t[]){ 8, i + 1 });
    assert_int_equal(wn_gguf_writer_data(w, x, 32 * ((size_t)i + 1), &err), WN_OK);
    assert_int_equal(wn_gguf_writer_close(w, &err), WN_OK);
}

static void parts_become_one_model(void **state)
{
    (void)state;
    char dir[] = "/tmp/winnow-parts-XXXXXX", path[256];
    wn_gguf *g;
    wn_err err;
    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < 3; i++) write_part(dir, i, 3, i, 3, 3);
    snprintf(path, sizeof path, "%s/m-00001-of-00003.gguf", dir);
    if (wn_gguf_open(&g, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(wn_gguf_n_parts(g), 3);
    assert_int_equal(wn_gguf_n_tensors(g), 3);
    for (int i = 0; i < 3; i++) {
        char name[16];
        float x;
        snprintf(name, sizeof name, "t%d", i);
        const wn_tensor *t = wn_gguf_tensor(g, name);
        memcpy(&x, t->data, 4);
        assert_true(x == (float)i);
        assert_int_equal(t->part, i);
        assert_int_equal(t->ne[1], i + 1);
    }
    read_everything(g);
    wn_gguf_close(g);

    write_part(dir, 0, 3, 0, 3, 4);                 /* promises a tensor that no part has */
    assert_int_equal(wn_gguf_open(&g, path, &err), WN_EFORMAT);
    assert_non_null(strstr(err.text, "split.tensors.count"));
    write_part(dir, 0, 3, 0, 3, 3);
    write_part(dir, 2, 3, 1, 3, 3);                 /* the third file says it is the second part */
    assert_int_equal(wn_gguf_open(&g, path, &err), WN_EFORMAT);
    assert_non_null(strstr(err.text, "should be part 3 of 3, but says it is part 2 of 3"));
    snprintf(path, sizeof path, "%s/m-00003-of-00003.gguf", dir);
    assert_int_equal(wn_gguf_open(&g, path, &err), WN_EFORMAT);
    assert_non_null(strstr(err.text, "give the first"));
    unlink(path);
    snprintf(path, sizeof path, "%s/m-00001-of-00003.gguf", dir);
    assert_int_equal(wn_gguf_open(&g, path, &err), WN_EIO);             /* names the missing part */
    assert_non_null(strstr(err.text, "00003-of-00003"));
    assert_null(g);
    unlink(path);
    snprintf(path, sizeof path, "%s/m-00002-of-00003.gguf", dir);
    unlink(path);
    rmdir(dir);
}

static void open_survives_every_failed_allocation(void **state)
{
    (void)state;
    bytes b = { 0 };
    put_front(&b, 3, 2, 2);
    put_array(&b, "s", WN_KV_STRING, 1), put_text(&b, "x");
    put_key(&b, "u", WN_KV_U32), put_u32(&b, 1);
    put_tensor(&b, "a", 1, (uint64_t[]){ 8 }, WN_TYPE_F32, 0);
    put_tensor(&b, "b", 1, (uint64_t[]){ 8 }, WN_TYPE_F32, 32);
    pad_to(&b, 32), put_zeros(&b, 64);
    for (long n = 1, fired = 1; fired; n++) {
        wn_gguf *g;
        wn_err err;
        wn_fault_alloc(n);
        wn_status st = wn_gguf_open_memory(&g, b.p, b.n, &err);
        fired = wn_fault_clear();
        assert_int_equal(st, fired ? WN_ENOMEM : WN_OK);
        wn_gguf_close(g);
        assert_true(n < 100);
    }
    free(b.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_type_reads_back),
        cmocka_unit_test(arrays_of_every_type_read_back),
        cmocka_unit_test(wrong_values_are_refused),
        cmocka_unit_test(wrong_alignments_are_refused),
        cmocka_unit_test(wrong_tensors_are_refused),
        cmocka_unit_test(tensors_may_not_share),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(an_incomplete_file_is_an_error_and_goes),
        cmocka_unit_test(parts_become_one_model),
        cmocka_unit_test(open_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
