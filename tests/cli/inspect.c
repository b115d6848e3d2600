/* `winnow inspect` from outside: exit codes, one sentence on failure, JSON that parses,
 * figures that agree with the formula, and a terminal that a model cannot write to. */
#include "tests/support/shell.h"
#include "tests/unit/check.h"

#include <jansson.h>
#include <unistd.h>

#include "gguf/generate.h"
#include "gguf/write.h"

static char model[] = "/tmp/winnow-inspect-XXXXXX";

/* Runs ./winnow with the arguments; returns the exit status. */
static int winnow(const char *args) { return sh_both("./winnow %s", args); }
static int inspect(const char *path, const char *flags)
{
    return sh_both("./winnow inspect %s %s", path, flags);
}

static int make_model(void **state)
{
    (void)state;
    wn_generate_opts o = { .dim = 128, .n_layers = 3, .n_heads = 4, .n_kv_heads = 2, .head_dim = 40,
                           .ffn = 64, .vocab = 300, .type = "Q8_0", .n_ctx = 2000 };
    wn_err err;
    close(mkstemp(model));
    return wn_generate(model, &o, NULL, &err) != WN_OK;
}

static int drop_model(void **state)
{
    (void)state;
    return unlink(model);
}

static void exit_codes_say_what_happened(void **state)
{
    (void)state;
    assert_int_equal(winnow("--version"), 0);
    assert_int_equal(winnow("--help"), 0);
    assert_non_null(strstr(out, "inspect"));
    assert_int_equal(winnow(""), 2);
    assert_int_equal(winnow("no-such-command"), 2);
    assert_int_equal(winnow("inspect --help"), 0);
    assert_non_null(strstr(out, "--json"));
    assert_int_equal(winnow("inspect"), 2);
    assert_int_equal(inspect(model, "--frobnicate"), 2);
    assert_int_equal(inspect("/nowhere/at/all.gguf", ""), 1);
    assert_non_null(strstr(out, "/nowhere/at/all.gguf"));
    assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);     /* one sentence */
    assert_int_equal(inspect("Makefile", ""), 1);
    assert_non_null(strstr(out, "not a GGUF file"));
    assert_int_equal(inspect(model, ""), 0);
    assert_non_null(strstr(out, "blk.2.ffn_down.weight"));
    assert_int_equal(inspect(model, "--no-tensors"), 0);
    assert_null(strstr(out, "blk.2.ffn_down.weight"));
}

static void json_agrees_with_the_formula(void **state)
{
    (void)state;
    assert_int_equal(inspect(model, "--json"), 0);
    json_t *all = json_loads(out, 0, NULL);
    assert_non_null(all);
    json_t *cache = json_object_get(all, "cache"),
           *per_1k = json_object_get(cache, "bytes_per_1k_tokens");
    assert_int_equal(json_integer_value(json_object_get(cache, "lanes")), 3 * 2);
    assert_int_equal(json_integer_value(json_object_get(per_1k, "f16")),
                     3 * 2 * (40 + 40) * 2 * 1024);
    assert_int_equal(json_integer_value(json_object_get(per_1k, "f32")),
                     3 * 2 * (40 + 40) * 4 * 1024);
    size_t i, tensors = 0, sum = 0;
    json_t *t, *list = json_object_get(all, "tensors");
    json_array_foreach(list, i, t) sum += (size_t)json_integer_value(json_object_get(t, "bytes"));
    assert_int_equal(json_array_size(list), 3 * 9 + 2);
    const char *name;
    json_object_foreach(json_object_get(all, "types"), name, t) {
        tensors += (size_t)json_integer_value(json_object_get(t, "tensors"));
        sum -= (size_t)json_integer_value(json_object_get(t, "bytes"));
    }
    assert_int_equal(tensors, json_array_size(list));
    assert_int_equal(sum, 0);
    json_decref(all);
}

/* Escape sequences (C0 and C1) and broken UTF-8 in values: shown, not sent. */
static void a_model_cannot_write_to_the_terminal(void **state)
{
    (void)state;
    char path[] = "/tmp/winnow-inspect-XXXXXX";
    wn_gguf_writer *w;
    wn_err err;
    close(mkstemp(path));
    assert_int_equal(wn_gguf_writer_open(&w, path, &err), WN_OK);
    wn_gguf_put_string(w, "general.name", "a\033[2Jb\xc2\x9bJ\r\x7f\xff\"");
    wn_gguf_put_strings(w, "list", (const char *const[]){ "\033]0;x\a" }, 1);
    assert_int_equal(wn_gguf_writer_close(w, &err), WN_OK);
    assert_int_equal(inspect(path, ""), 0);
    for (const char *c = out; *c; c++) {
        assert_true((unsigned char)*c >= 0x20 || *c == '\n');
        assert_true(*c != 0x7f && !((unsigned char)c[0] == 0xc2 && (unsigned char)c[1] < 0xa0));
    }
    assert_non_null(strstr(out, "a\\x1b[2Jb\\xc2\\x9bJ\\x0d\\x7f"));
    assert_int_equal(inspect(path, "--json"), 0);
    json_t *all = json_loads(out, 0, NULL);
    assert_non_null(all);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(all, "metadata"), "general.name")),
        "a\033[2Jb\xc2\x9bJ\r\x7f\xef\xbf\xbd\"");
    json_decref(all);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes_say_what_happened),
        cmocka_unit_test(json_agrees_with_the_formula),
        cmocka_unit_test(a_model_cannot_write_to_the_terminal),
    };
    return cmocka_run_group_tests(tests, make_model, drop_model);
}
