/* tests/fuzz/session.c - session files whose checksum is right and whose content is not.
 *
 * The input is the payload of a session record; the header is made for it, so that the
 * fuzzer reaches the fields behind the checksum. What loads must pass the cache's own
 * check and compute two more tokens. The model is tiny (1 layer, one head of 32) and the
 * pages have 4 slots, so that a whole session is about a kilobyte. */
#include "engine/engine.h"
#include "gguf/generate.h"
#include "store/record.h"
#include "winnow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

static wn_model *model;
static wn_engine *engine;

static void must(wn_status st, const wn_err *err)
{
    if (st == WN_OK) return;
    fprintf(stderr, "fuzz session: %s\n", err->text);
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char path[64];
    wn_err err;
    (void)argc;
    (void)argv;
    snprintf(path, sizeof path, "/tmp/winnow-fuzz-%ld.gguf", (long)getpid());
    wn_generate_opts o = { .type = "F32", .dim = 32, .n_layers = 1, .n_heads = 1, .n_kv_heads = 1,
                           .head_dim = 32, .ffn = 32, .vocab = 320, .n_ctx = 64, .seed = 1 };
    must(wn_generate(path, &o, NULL, &err), &err);
    must(wn_model_open(&model, path, &(wn_model_opts){ .n_threads = 1 }, &err), &err);
    unlink(path);
    must(wn_engine_open(&engine, model, &(wn_engine_opts){ .n_threads = 1, .page_slots = 4,
                                                           .pool_tokens = 128,
                                                           .mem = (size_t)1 << 30 }, &err), &err);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int32_t more[2] = { 7, 8 };
    uint8_t *rec = calloc(1, 96 + size);
    XXH128_canonical_t c;
    wn_err err;
    wn_seq *s;
    if (!rec) return 0;
    memcpy(rec, "WINNOWRC", 8);
    rec[8] = WN_RECORD_VERSION_SESSION;
    rec[12] = WN_RECORD_SESSION;
    for (int i = 0; i < 8; i++) rec[64 + i] = (uint8_t)((uint64_t)size >> (8 * i));
    memcpy(rec + 96, data, size);
    XXH3_state_t *st = XXH3_createState();
    XXH3_128bits_reset(st);
    XXH3_128bits_update(st, rec + 96, size);
    XXH3_128bits_update(st, rec, 80);
    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(st));
    XXH3_freeState(st);
    memcpy(rec + 80, c.digest, 16);

    must(wn_seq_open(&s, engine, &(wn_seq_opts){ .max_tokens = 48 }, &err), &err);
    if (wn_seq_load_memory(s, rec, 96 + size, &err) == WN_OK) {
        wn_kv_check(s->kv);
        if (wn_seq_feed(s, more, 2, &err) == WN_OK) wn_engine_step(engine, NULL, &err);
        wn_kv_check(s->kv);
    }
    wn_seq_close(s);
    free(rec);
    return 0;
}
