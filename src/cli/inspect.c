/* cli/inspect.c - `winnow inspect MODEL`: what is in the file, before anything is loaded.
 *
 * Collects the facts once (totals per type, the shape of the cache) and prints them as
 * tables or as JSON. Strings of a model come from strangers: control characters never
 * reach the terminal, and bytes that are not UTF-8 become U+FFFD in JSON.
 *
 * The cache of one lane holds, for each page of 64 positions, a frame of K and a frame of
 * V, each rounded up to 64 bytes. That is what the engine takes from the pool for a
 * sequence whose length is a multiple of 64; masks and lists come on top.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/models.h"

#include "base/alloc.h"
#include "gguf/gguf.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FIRST = 8, PAGE_SLOTS = 64, FRAME_UNIT = 64, TEXT_SHOWN = 68 };


static const struct { const char *name; int bytes; } cache_formats[] = {
    { "f32", 4 }, { "f16", 2 }, { "bf16", 2 },
};
enum { N_FORMATS = (int)(sizeof cache_formats / sizeof *cache_formats) };

/* The cache's shape, as far as the metadata says it. */
typedef struct {
    bool known;
    int64_t n_layers, key_length, value_length;
    int64_t n_lanes;                    /* key-value heads over all layers */
    int64_t n_ctx;                      /* 0: not said */
} cache_shape;

/* ---- facts --------------------------------------------------------------------------- */

/* The integer at ARCH.key, or fallback where it is absent or no integer. */
static int64_t arch_int(const wn_gguf *g, const char *key, int64_t fallback)
{
    char full[160];
    wn_str arch = { "", 0 };
    int64_t v = fallback;
    wn_gguf_string(g, "general.architecture", false, &arch, NULL);
    snprintf(full, sizeof full, "%.*s.%s", (int)WN_MIN(arch.n, (size_t)64), arch.p, key);
    wn_gguf_int(g, full, false, 0, 1 << 30, &v, NULL);
    return v;
}

/* Key-value heads of all layers: one number for every layer, or an array of them. */
static int64_t count_lanes(const wn_gguf *g, int64_t n_layers, int64_t n_heads)
{
    char full[160];
    wn_str arch = { "", 0 };
    int64_t sum = 0;
    wn_gguf_string(g, "general.architecture", false, &arch, NULL);
    snprintf(full, sizeof full, "%.*s.attention.head_count_kv", (int)WN_MIN(arch.n, (size_t)64),
             arch.p);
    const wn_gguf_kv *kv = wn_gguf_find(g, full);
    if (!kv || kv->type != WN_KV_ARRAY)
        return n_layers * arch_int(g, "attention.head_count_kv", n_heads);
    if (kv->item == WN_KV_STRING || kv->item == WN_KV_F32 || kv->item == WN_KV_F64) return 0;
    for (uint64_t i = 0; i < kv->n && i < (uint64_t)n_layers; i++) {
        int64_t n = wn_gguf_item_int(kv, i);
        if (n < 0 || n > 1 << 20) return 0;
        sum += n;
    }
    return sum;
}

static cache_shape read_shape(const wn_gguf *g)
{
    int64_t n_heads = arch_int(g, "attention.head_count", 0);
    int64_t dim = arch_int(g, "embedding_length", 0);
    cache_shape c = { .n_layers = arch_int(g, "block_count", 0),
                      .n_ctx = arch_int(g, "context_length", 0) };
    c.key_length = arch_int(g, "attention.key_length", n_heads ? dim / n_heads : 0);
    c.value_length = arch_int(g, "attention.value_length", n_heads ? dim / n_heads : 0);
    /* Limits far above any model keep the products below from overflowing. */
    if (c.n_layers > 100000 || c.key_length > 1 << 20 || c.value_length > 1 << 20) return c;
    c.n_lanes = count_lanes(g, c.n_layers, n_heads);
    c.known = c.n_layers && c.key_length && c.value_length && c.n_lanes > 0 && c.n_lanes < 1 << 24;
    return c;
}

static size_t frame_bytes(int64_t width, int item)
{
    size_t n = (size_t)width * PAGE_SLOTS * (size_t)item;
    return (n + FRAME_UNIT - 1) / FRAME_UNIT * FRAME_UNIT;
}

/* Bytes of n_tokens (rounded up to whole pages) in every lane. */
static size_t cache_bytes(const cache_shape *c, int item, int64_t n_tokens)
{
    size_t pages = (size_t)(n_tokens + PAGE_SLOTS - 1) / PAGE_SLOTS;
    return pages * (size_t)c->n_lanes *
           (frame_bytes(c->key_length, item) + frame_bytes(c->value_length, item));
}

typedef struct {
    size_t n_tensors, bytes;
    double n_values;
} type_total;

static void count_types(const wn_gguf *g, type_total total[static WN_TYPE_COUNT])
{
    memset(total, 0, sizeof *total * WN_TYPE_COUNT);
    for (size_t i = 0; i < wn_gguf_n_tensors(g); i++) {
        const wn_tensor *t = wn_gguf_tensor_at(g, i);
        const wn_type_info *info = wn_type_find((uint32_t)t->type);
        total[t->type].n_tensors++;
        total[t->type].bytes += t->bytes;
        total[t->type].n_values += (double)(t->bytes / info->block_bytes) * info->block;
    }
}

/* ---- tables -------------------------------------------------------------------------- */

/* 1104719936 as "1.03 GiB". */
static const char *size_text(size_t bytes, char buf[static 32])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1024 && u + 1 < WN_COUNT(units)) {
        v /= 1024;
        u++;
    }
    int digits = u == 0 || v >= 100 ? 0 : v >= 10 ? 1 : 2;
    snprintf(buf, 32, "%.*f %s", digits, v, units[u]);
    return buf;
}

/* At most max bytes of a string, on one line: what could move a cursor is escaped. C1
 * control characters (U+0080..U+009F) are two bytes in UTF-8, c2 and 80..9f. */
static void print_text(wn_str s, size_t max)
{
    size_t n = WN_MIN(s.n, max);
    while (n < s.n && n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80) n--; /* whole characters */
    putchar('"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool c1 = c == 0xc2 && i + 1 < n && (unsigned char)s.p[i + 1] < 0xa0;
        if (c == '\n') fputs("\\n", stdout);
        else if (c == '\t') fputs("\\t", stdout);
        else if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c < 0x20 || c == 0x7f || c1) printf("\\x%02x", c);
        else if (i > 0 && (unsigned char)s.p[i - 1] == 0xc2 && c < 0xa0) printf("\\x%02x", c);
        else putchar(c);
    }
    putchar('"');
    if (n < s.n) printf("... (%zu bytes)", s.n);
}

static void print_item(const wn_gguf_kv *kv, uint64_t i)
{
    if (kv->item == WN_KV_STRING) print_text(wn_gguf_item_string(kv, i), 24);
    else if (kv->item == WN_KV_F32 || kv->item == WN_KV_F64)
        printf("%g", wn_gguf_item_float(kv, i));
    else if (kv->item == WN_KV_BOOL) fputs(wn_gguf_item_int(kv, i) ? "true" : "false", stdout);
    else printf("%" PRId64, wn_gguf_item_int(kv, i));
}

/* A scalar as an array of one, so that both are read the same way. */
static wn_gguf_kv as_array(const wn_gguf_kv *kv)
{
    static const uint64_t zero[1];
    wn_gguf_kv a = *kv;
    if (kv->type != WN_KV_ARRAY) {
        a.item = kv->type;
        a.type = WN_KV_ARRAY;
        a.at = zero;
    }
    return a;
}

static void print_value(const wn_gguf_kv *kv)
{
    wn_gguf_kv a = as_array(kv);
    if (kv->type == WN_KV_STRING) {
        print_text(wn_gguf_item_string(&a, 0), TEXT_SHOWN);
    } else if (kv->type != WN_KV_ARRAY) {
        print_item(&a, 0);
    } else {
        uint64_t n = WN_MIN(kv->n, (uint64_t)FIRST);
        putchar('[');
        for (uint64_t i = 0; i < n; i++) {
            if (i) fputs(", ", stdout);
            print_item(kv, i);
        }
        printf(kv->n > n ? ", ...] (%" PRIu64 " of %s)" : "]", kv->n, wn_kv_type_name(kv->item));
    }
}

static void print_tensors(const wn_gguf *g)
{
    puts("\ntensors");
    for (size_t i = 0; i < wn_gguf_n_tensors(g); i++) {
        const wn_tensor *t = wn_gguf_tensor_at(g, i);
        char shape[96], bytes[32];
        int n = 0;
        for (int d = 0; d < t->n_dims; d++)
            n += snprintf(shape + n, sizeof shape - (size_t)n, "%s%" PRId64, d ? " x " : "",
                          t->ne[d]);
        printf("  %-32s %-7s %20s  %10s\n", t->name, wn_type_find((uint32_t)t->type)->name, shape,
               size_text(t->bytes, bytes));
    }
}

/* A mixture of experts, as names of tensors and metadata tell; n 0: none. */
typedef struct {
    int64_t n, n_used;
    size_t bytes, step_bytes;           /* of experts; of all weights but the embedding that a token
                                           reads */
} mixture;

static mixture read_mixture(const wn_gguf *g)
{
    mixture x = { .n = arch_int(g, "expert_count", 0),
                  .n_used = arch_int(g, "expert_used_count", 0) };
    size_t others = 0;
    bool tied = !wn_gguf_tensor(g, "output.weight");
    for (size_t i = 0; i < wn_gguf_n_tensors(g); i++) {
        const wn_tensor *t = wn_gguf_tensor_at(g, i);
        if (strstr(t->name, "_exps.")) x.bytes += t->bytes;
        else if (tied || strcmp(t->name, "token_embd.weight")) others += t->bytes;
    }
    if (x.n_used < 1 || x.n_used > x.n) x.n = 0;
    if (x.n) x.step_bytes = others + x.bytes / (size_t)x.n * (size_t)x.n_used;
    return x;
}

static void print_mixture(const wn_gguf *g)
{
    mixture x = read_mixture(g);
    char a[32], b[32];
    if (!x.n) return;
    printf("\nexperts: %" PRId64 ", a token uses %" PRId64
           " of each layer's: %s of weights are experts, %s are read "
           "for a token\n",
           x.n, x.n_used, size_text(x.bytes, a), size_text(x.step_bytes, b));
}

static void print_cache(const cache_shape *c, int64_t window)
{
    char a[32], b[32];
    if (!c->known) {
        puts("\ncache: the metadata does not say its shape");
        return;
    }
    printf("\ncache: %" PRId64 " lanes in %" PRId64 " layers, keys of %" PRId64
           ", values of %" PRId64 "\n",
           c->n_lanes, c->n_layers, c->key_length, c->value_length);
    printf("  format   per 1k tokens%s\n", c->n_ctx ? "   at full context" : "");
    for (int i = 0; i < N_FORMATS; i++) {
        printf("  %-6s %15s", cache_formats[i].name,
               size_text(cache_bytes(c, cache_formats[i].bytes, 1024), a));
        if (c->n_ctx)
            printf(" %17s (%" PRId64 " tokens)",
                   size_text(cache_bytes(c, cache_formats[i].bytes, c->n_ctx), b), c->n_ctx);
        putchar('\n');
    }
    if (window && window < c->n_ctx)
        printf("  less than that in layers with a sliding window, which hold %" PRId64
               " positions\n",
               window);
}

static void print_tables(const wn_gguf *g, bool tensors)
{
    type_total total[WN_TYPE_COUNT];
    cache_shape c = read_shape(g);
    char buf[32];
    double n_values = 0;
    printf("%s: GGUF version %u, %s", wn_gguf_path(g), wn_gguf_version(g),
           size_text(wn_gguf_file_bytes(g), buf));
    if (wn_gguf_n_parts(g) > 1) printf(" in %d parts", wn_gguf_n_parts(g));
    printf(", alignment %u\n\nmetadata\n", wn_gguf_alignment(g));
    for (size_t i = 0; i < wn_gguf_n_kv(g); i++) {
        const wn_gguf_kv *kv = wn_gguf_kv_at(g, i);
        printf("  %-40.*s %-6s ", (int)WN_MIN(kv->key.n, (size_t)80), kv->key.p,
               wn_kv_type_name(kv->type));
        print_value(kv);
        putchar('\n');
    }
    if (tensors) print_tensors(g);
    count_types(g, total);
    puts("\ntypes");
    for (int i = 0; i < WN_TYPE_COUNT; i++) {
        if (!total[i].n_tensors) continue;
        n_values += total[i].n_values;
        printf("  %-7s %5zu tensors %10s  %8.2f M values%s\n", wn_type_find((uint32_t)i)->name,
               total[i].n_tensors, size_text(total[i].bytes, buf), total[i].n_values / 1e6,
               wn_type_find((uint32_t)i)->decode ? "" : "  (cannot be run)");
    }
    printf("  all     %5zu tensors %21.2f M values\n", wn_gguf_n_tensors(g), n_values / 1e6);
    print_mixture(g);
    print_cache(&c, arch_int(g, "attention.sliding_window", 0));
}

/* ---- JSON ---------------------------------------------------------------------------- */

/* Length of the valid UTF-8 character at p, 0 for none. */
static size_t utf8_length(const unsigned char *p, size_t left)
{
    if (p[0] < 0x80) return 1;
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

static json_t *json_text(wn_str s)
{
    char *buf = wn_alloc(3 * s.n + 1);
    size_t n = 0, k;
    if (!buf) return NULL;
    for (size_t i = 0; i < s.n; i += k ? k : 1) {
        k = utf8_length((const unsigned char *)s.p + i, s.n - i);
        memcpy(buf + n, k ? s.p + i : "\xef\xbf\xbd", k ? k : 3);
        n += k ? k : 3;
    }
    json_t *j = json_stringn(buf, n);
    wn_free(buf);
    return j;
}

static json_t *json_item(const wn_gguf_kv *kv, uint64_t i)
{
    if (kv->item == WN_KV_STRING) return json_text(wn_gguf_item_string(kv, i));
    if (kv->item == WN_KV_BOOL) return json_boolean(wn_gguf_item_int(kv, i));
    if (kv->item == WN_KV_F32 || kv->item == WN_KV_F64) {
        double v = wn_gguf_item_float(kv, i);
        return isfinite(v) ? json_real(v) : json_null();
    }
    return json_integer(wn_gguf_item_int(kv, i));
}

/* A scalar is itself; an array an object with its length, all of it when it is short. */
static json_t *json_value(const wn_gguf_kv *kv)
{
    wn_gguf_kv a = as_array(kv);
    if (kv->type != WN_KV_ARRAY) return json_item(&a, 0);
    json_t *first = json_array();
    for (uint64_t i = 0; i < WN_MIN(kv->n, (uint64_t)FIRST); i++)
        json_array_append_new(first, json_item(kv, i));
    return json_pack("{s:s, s:I, s:o}", "item", wn_kv_type_name(kv->item), "n", (json_int_t)kv->n,
                     "first", first);
}

static json_t *json_tensor(const wn_tensor *t)
{
    json_t *shape = json_array();
    for (int d = 0; d < t->n_dims; d++) json_array_append_new(shape, json_integer(t->ne[d]));
    return json_pack("{s:o, s:s, s:o, s:I, s:i, s:I}", "name",
                     json_text((wn_str){ t->name, strlen(t->name) }), "type",
                     wn_type_find((uint32_t)t->type)->name, "shape", shape, "bytes",
                     (json_int_t)t->bytes, "part", t->part, "offset", (json_int_t)t->offset);
}

static json_t *json_cache(const cache_shape *c)
{
    if (!c->known) return json_null();
    json_t *per_1k = json_object();
    for (int i = 0; i < N_FORMATS; i++)
        json_object_set_new(per_1k, cache_formats[i].name,
                            json_integer((json_int_t)cache_bytes(c, cache_formats[i].bytes, 1024)));
    return json_pack("{s:I, s:I, s:I, s:I, s:i, s:o}", "layers", (json_int_t)c->n_layers, "lanes",
                     (json_int_t)c->n_lanes, "key_length", (json_int_t)c->key_length,
                     "value_length", (json_int_t)c->value_length, "page_slots", PAGE_SLOTS,
                     "bytes_per_1k_tokens", per_1k);
}

static json_t *json_mixture(const wn_gguf *g)
{
    mixture x = read_mixture(g);
    if (!x.n) return json_null();
    return json_pack("{s:I, s:I, s:I, s:I}", "count", (json_int_t)x.n, "used", (json_int_t)x.n_used,
                     "bytes", (json_int_t)x.bytes, "step_bytes", (json_int_t)x.step_bytes);
}

static int print_json(const wn_gguf *g, bool tensors)
{
    type_total total[WN_TYPE_COUNT];
    cache_shape c = read_shape(g);
    json_t *meta = json_object(), *list = json_array(), *types = json_object();
    for (size_t i = 0; i < wn_gguf_n_kv(g); i++) {
        const wn_gguf_kv *kv = wn_gguf_kv_at(g, i);
        json_t *key = json_text(kv->key);
        if (key) json_object_set_new(meta, json_string_value(key), json_value(kv));
        json_decref(key);
    }
    for (size_t i = 0; tensors && i < wn_gguf_n_tensors(g); i++)
        json_array_append_new(list, json_tensor(wn_gguf_tensor_at(g, i)));
    count_types(g, total);
    for (int i = 0; i < WN_TYPE_COUNT; i++)
        if (total[i].n_tensors)
            json_object_set_new(types, wn_type_find((uint32_t)i)->name,
                                json_pack("{s:I, s:I, s:I, s:b}", "tensors",
                                          (json_int_t)total[i].n_tensors, "bytes",
                                          (json_int_t)total[i].bytes, "values",
                                          (json_int_t)total[i].n_values, "runnable",
                                          wn_type_find((uint32_t)i)->decode != NULL));
    const char *path = wn_gguf_path(g);
    json_t *all =
        json_pack("{s:o, s:i, s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "path",
                  json_text((wn_str){ path, strlen(path) }), "version", (int)wn_gguf_version(g),
                  "parts", wn_gguf_n_parts(g), "alignment", (json_int_t)wn_gguf_alignment(g),
                  "bytes", (json_int_t)wn_gguf_file_bytes(g), "metadata", meta, "tensors", list,
                  "types", types, "experts", json_mixture(g), "cache", json_cache(&c));
    int rc = all ? json_dumpf(all, stdout, JSON_COMPACT) : -1;
    putchar('\n');
    json_decref(all);
    return rc ? WN_EXIT_FAILED : WN_EXIT_OK;
}

/* ---- the command ------------------------------------------------------------------------ */

static wn_status open_file(wn_gguf **g, const char *name, wn_err *err)
{
    char *path;
    wn_status st = wn_models_resolve(name, &path, err);
    if (!st) st = wn_gguf_open(g, path, err);
    wn_free(path);
    return st;
}

const wn_help_page wn_cli_inspect_page = {
    .command = "inspect",
    .summary = "what is in a model file, and what its cache costs",
    .usage = "MODEL [options]",
    .about =
        "Shows a GGUF file's metadata, its tensors, bytes per tensor type, and the memory its\n"
        "key-value cache takes for 1024 tokens in each raw format. Split models: give the first "
        "part.\n"
        "Only the header is read, so a file of any size is shown at once.",
    .examples = "winnow inspect models/winnow-demo.gguf",
};

int wn_cli_inspect(int argc, char **argv)
{
    const char *path = NULL, *word;
    bool json = false, no_tensors = false;
    wn_gguf *g;
    wn_err err;
    const wn_arg table[] = {
        { 'm', "model", WN_ARG_STRING, &path, "MODEL", "the file, instead of giving it alone", 0, 0,
          0 },
        { 0, "json", WN_ARG_FLAG, &json, NULL,
          "one JSON object (long arrays: length and first elements)", 0, 0, 0 },
        { 0, "no-tensors", WN_ARG_FLAG, &no_tensors, NULL, "leave out the list of tensors", 0, 0,
          0 },
    };
    int rc;
    if (!wn_cli_parse(&wn_cli_inspect_page, table, (int)WN_COUNT(table), argc, argv, &word, &rc))
        return rc;
    if (word && wn_args_given("model")) {
        fprintf(stderr, "winnow inspect: two models, %.60s and %.60s; give one\n", path, word);
        return WN_EXIT_USAGE;
    }
    if (word) path = word;
    if (!path) {
        fputs("winnow inspect: which model? winnow inspect --help explains\n", stderr);
        return WN_EXIT_USAGE;
    }
    if (open_file(&g, path, &err)) {
        fprintf(stderr, "winnow: %s\n", err.text);
        return WN_EXIT_FAILED;
    }
    if (json) rc = print_json(g, !no_tensors);
    else print_tables(g, !no_tensors);
    wn_gguf_close(g);
    if (fflush(stdout) || ferror(stdout)) {
        fputs("winnow: the output could not be written\n", stderr);
        rc = WN_EXIT_FAILED;
    }
    return rc;
}
