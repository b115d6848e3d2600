/* -m takes names: what lies in the caches of other programs is found and read where it
 * lies, a name that fits several models is refused, and nothing is guessed. The caches here
 * are made for the test, in the layouts that those programs use, around the demo model. */
#include "tests/support/shell.h"
#include "tests/unit/check.h"

#include <jansson.h>
#include <stdbool.h>

static char dir[] = "/tmp/winnow-models-XXXXXX";

/* A shell with HOME in the test's directory and nothing else said about places. */
#define AT_HOME                                                                            \
    "env -u XDG_CACHE_HOME -u XDG_DATA_HOME -u HF_HOME -u HF_HUB_CACHE -u LLAMA_CACHE -u " \
    "OLLAMA_MODELS "                                                                       \
    "-u WN_MODELS HOME=%s "

static int make_caches(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(
        sh("set -e; demo=$PWD/models/winnow-demo.gguf; cd %s\n"
           "mkdir -p .local/share/winnow/models/deep .cache/llama.cpp .ollama/models/blobs\n"
           "ln -s $demo .local/share/winnow/models/deep/Mine-Q8_0.gguf\n"
           "touch .local/share/winnow/models/Split-00002-of-00002.gguf "
           ".local/share/winnow/models/notes.txt\n"
           "head -c 1000 $demo > .local/share/winnow/models/Split-00001-of-00002.gguf\n"
           "hub=.cache/huggingface/hub/models--Some--Tiny-GGUF; mkdir -p $hub/refs $hub/blobs "
           "$hub/snapshots/abc $hub/snapshots/zzz\n"
           "printf abc > $hub/refs/main; ln -s $demo $hub/blobs/beef\n"
           "for q in Q4_K_M Q8_0; do ln -s ../../blobs/beef $hub/snapshots/abc/tiny-$q.gguf; done\n"
           "touch $hub/snapshots/abc/mmproj-tiny.gguf $hub/snapshots/zzz/old.gguf\n"
           "ln -s $demo .cache/llama.cpp/other_repo_small-q4_0.gguf; touch "
           ".cache/llama.cpp/other_repo_small-q4_0.gguf.json\n"
           "ln -s $demo .ollama/models/blobs/sha256-1234\n"
           "for m in registry.ollama.ai/library/qwen3/latest registry.ollama.ai/library/qwen3/8b "
           "hf.co/some/thing/Q4_0; do\n"
           "  mkdir -p .ollama/models/manifests/${m%%/*}\n"
           "  echo "
           "'{\"layers\":[{\"mediaType\":\"application/"
           "vnd.ollama.image.template\",\"digest\":\"sha256:1\"},"
           "{\"mediaType\":\"application/vnd.ollama.image.model\",\"digest\":\"sha256:1234\"}]}' > "
           ".ollama/models/manifests/$m\n"
           "done\n"
           "echo 'no json' > .ollama/models/manifests/registry.ollama.ai/library/qwen3/broken\n",
           dir),
        0);
    return 0;
}

static int drop_caches(void **state)
{
    (void)state;
    return sh("rm -r %s", dir);
}

static void every_place_is_listed(void **state)
{
    (void)state;
    static const char *const names[] = { "Mine-Q8_0",
                                         "Split",
                                         "Some/Tiny-GGUF:tiny-Q4_K_M",
                                         "Some/Tiny-GGUF:tiny-Q8_0",
                                         "other_repo_small-q4_0",
                                         "hf.co/some/thing:Q4_0",
                                         "qwen3:8b",
                                         "qwen3:latest" };
    assert_int_equal(sh(AT_HOME "./winnow models --json", dir), 0);
    json_t *j = json_loads(out, 0, NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool there = false;
        for (size_t k = 0; k < json_array_size(j); k++)
            there |= !strcmp(json_string_value(json_object_get(json_array_get(j, k), "name")),
                             names[i]);
        if (!there) fail_msg("%s is not in %s", names[i], out);
    }
    /* no projectors, parts, old commits, broken ones */
    assert_int_equal(json_array_size(j), sizeof names / sizeof *names);
    json_decref(j);
    assert_int_equal(sh(AT_HOME "./winnow models qwen", dir), 0);
    says("qwen3:8b");
    assert_null(strstr(out, "Mine"));
}

static void names_are_models(void **state)
{
    (void)state;
    static const char *const names[] = { "mine-q8_0",
                                         "Mine-Q8_0.gguf",
                                         "Some/Tiny-GGUF:Q8_0",
                                         "Some/Tiny-GGUF:q8",
                                         "some/tiny-gguf:tiny-q4_k_m",
                                         "tiny-Q8_0",
                                         "other_repo_small-q4_0",
                                         "qwen3",
                                         "QWEN3:8b",
                                         "hf.co/some/thing:Q4_0" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (sh_both(AT_HOME "./winnow tokenize -m '%s' < README.md", dir, names[i]))
            fail_msg("%s: %s", names[i], out);
    assert_int_equal(sh_both(AT_HOME "./winnow inspect qwen3 --json", dir), 0);
    assert_int_equal(sh_both(AT_HOME
                             "WN_MODELS=/nowhere:$PWD/models ./winnow inspect winnow-demo --json",
                             dir),
                     0);
}

static void other_names_are_refused(void **state)
{
    (void)state;
    static const struct { const char *name, *says;
    } wrong[] = {
        { "Some/Tiny-GGUF",
          "fits several models: Some/Tiny-GGUF:tiny-Q4_K_M, Some/Tiny-GGUF:tiny-Q8_0" },
        /* a part of a word is not a word */
        { "Some/Tiny-GGUF:8_0", "near it are Some/Tiny-GGUF" },
        { "qwen3:4b", "near it are qwen3:8b" },
        { "old", "there is no file and no model called \"old\"" },
        { "./mine-q8_0.gguf", "there is no file" },
        { "unheard-of", "winnow models lists the 8 that were found" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(sh_both(AT_HOME "./winnow inspect '%s'", dir, wrong[i].name), 1);
        says(wrong[i].says);
    }
    assert_int_equal(sh_both("env -i ./winnow models"), 0);         /* no HOME: no places */
    says("no models were found");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_place_is_listed),
        cmocka_unit_test(names_are_models),
        cmocka_unit_test(other_names_are_refused),
    };
    return cmocka_run_group_tests(tests, make_caches, drop_caches);
}
