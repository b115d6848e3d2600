/* gguf/generate.c - a model file out of nothing: metadata, vocabulary, weights.
 *
 * The list of tensors is walked twice by the same function, once to describe them and
 * once to fill them. Each tensor's numbers depend on the seed and on its place in the
 * list, and inside it on the number of a 64k-value piece, so pieces can be made by any
 * thread. The types follow what quantisers do: matrices get the type, norms and biases
 * F32; a mix spends more bits on the output matrix and on attn_v and ffn_down of the
 * layers that need them most; rows that do not divide into blocks fall back to Q8_0,
 * then F16.
 */
#include "gguf/generate.h"

#include "base/alloc.h"
#include "gguf/noise.h"
#include "gguf/write.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- options -------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    wn_type most, head, more;       /* matrices; output; attn_v and ffn_down where it matters */
    uint32_t file_type;             /* general.file_type */
} mix;

static const mix mixes[] = {
    { "F32", WN_TYPE_F32, WN_TYPE_F32, WN_TYPE_F32, 0 },
    { "F16", WN_TYPE_F16, WN_TYPE_F16, WN_TYPE_F16, 1 },
    { "BF16", WN_TYPE_BF16, WN_TYPE_BF16, WN_TYPE_BF16, 32 },
    { "Q8_0", WN_TYPE_Q8_0, WN_TYPE_Q8_0, WN_TYPE_Q8_0, 7 },
    { "Q4_0", WN_TYPE_Q4_0, WN_TYPE_Q6_K, WN_TYPE_Q4_0, 2 },
    { "Q4_K", WN_TYPE_Q4_K, WN_TYPE_Q4_K, WN_TYPE_Q4_K, 14 },
    { "Q4_K_S", WN_TYPE_Q4_K, WN_TYPE_Q6_K, WN_TYPE_Q4_K, 14 },
    { "Q4_K_M", WN_TYPE_Q4_K, WN_TYPE_Q6_K, WN_TYPE_Q6_K, 15 },
    { "Q6_K", WN_TYPE_Q6_K, WN_TYPE_Q6_K, WN_TYPE_Q6_K, 18 },
    { "Q4_1", WN_TYPE_Q4_1, WN_TYPE_Q6_K, WN_TYPE_Q4_1, 3 },
    { "Q5_0", WN_TYPE_Q5_0, WN_TYPE_Q6_K, WN_TYPE_Q5_0, 8 },
    { "Q5_1", WN_TYPE_Q5_1, WN_TYPE_Q6_K, WN_TYPE_Q5_1, 9 },
    { "Q2_K", WN_TYPE_Q2_K, WN_TYPE_Q6_K, WN_TYPE_Q3_K, 10 },
    { "Q3_K", WN_TYPE_Q3_K, WN_TYPE_Q3_K, WN_TYPE_Q3_K, 11 },
    { "Q3_K_M", WN_TYPE_Q3_K, WN_TYPE_Q6_K, WN_TYPE_Q4_K, 12 },
    { "Q3_K_L", WN_TYPE_Q3_K, WN_TYPE_Q6_K, WN_TYPE_Q5_K, 13 },
    { "Q5_K", WN_TYPE_Q5_K, WN_TYPE_Q5_K, WN_TYPE_Q5_K, 16 },
    { "Q5_K_S", WN_TYPE_Q5_K, WN_TYPE_Q6_K, WN_TYPE_Q5_K, 16 },
    { "Q5_K_M", WN_TYPE_Q5_K, WN_TYPE_Q6_K, WN_TYPE_Q6_K, 17 },
    { "IQ4_NL", WN_TYPE_IQ4_NL, WN_TYPE_Q6_K, WN_TYPE_Q5_0, 25 },
    { "IQ4_XS", WN_TYPE_IQ4_XS, WN_TYPE_Q6_K, WN_TYPE_Q5_K, 30 },
    { "MXFP4", WN_TYPE_MXFP4, WN_TYPE_Q8_0, WN_TYPE_MXFP4, 38 },
};

const char *const wn_generate_types = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, "
                                      "Q3_K_M, Q3_K_L, Q4_K, Q4_K_S, Q4_K_M, "
                                      "Q5_K, Q5_K_S, Q5_K_M, Q6_K, IQ4_NL, IQ4_XS, MXFP4";
/* What an architecture's layers have beside the Llama shape. */
typedef struct {
    const char *name;
    bool biases, norms, wide_norms, post_norms, fused, experts, sinks;
    bool own_ffn_key;               /* expert_feed_forward_length */
} arch;

static const arch archs[] = {
    { .name = "llama" },
    { .name = "qwen2", .biases = true },
    { .name = "qwen3", .norms = true },
    { .name = "gemma2", .post_norms = true },
    { .name = "gemma3", .norms = true, .post_norms = true },
    { .name = "phi3", .fused = true },
    { .name = "smollm3" },
    { .name = "qwen3moe", .norms = true, .experts = true, .own_ffn_key = true },
    { .name = "olmoe", .wide_norms = true, .experts = true },
    { .name = "gpt-oss", .biases = true, .experts = true, .sinks = true, .own_ffn_key = true },
};

const char *const wn_generate_archs =
    "llama, qwen2, qwen3, gemma2, gemma3, phi3, smollm3, qwen3moe, olmoe, gpt-oss";
const char *const wn_generate_presets =
    "tiny, 1b, 1b-hd128, 3b, 8b, qwen2-1.5b, qwen3-0.6b, qwen3-30b-a3b, gpt-oss-20b, gemma3-1b";

bool wn_generate_preset(wn_generate_opts *o, const char *name)
{
    static const struct { const char *name; wn_generate_opts o; } presets[] = {
        { "tiny", { .dim = 256, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 64,
                    .ffn = 512, .vocab = 512, .n_ctx = 4096 } },
        { "1b", { .dim = 2048, .n_layers = 16, .n_heads = 32, .n_kv_heads = 8, .head_dim = 64,
                  .ffn = 8192, .vocab = 32000 } },
        { "1b-hd128", { .dim = 2048, .n_layers = 16, .n_heads = 16, .n_kv_heads = 4,
                        .head_dim = 128, .ffn = 8192, .vocab = 32000 } },
        { "3b", { .dim = 3072, .n_layers = 28, .n_heads = 24, .n_kv_heads = 8, .head_dim = 128,
                  .ffn = 8192, .vocab = 128256, .rope_freqs = true } },
        { "8b", { .dim = 4096, .n_layers = 32, .n_heads = 32, .n_kv_heads = 8, .head_dim = 128,
                  .ffn = 14336, .vocab = 128256, .rope_freqs = true, .untied = true } },
        { "qwen2-1.5b", { .arch = "qwen2", .dim = 1536, .n_layers = 28, .n_heads = 12,
                          .n_kv_heads = 2, .head_dim = 128, .ffn = 8960, .vocab = 151936,
                          .n_ctx = 32768, .rope_theta = 1e6f } },
        { "qwen3-0.6b", { .arch = "qwen3", .dim = 1024, .n_layers = 28, .n_heads = 16,
                          .n_kv_heads = 8, .head_dim = 128, .ffn = 3072, .vocab = 151936,
                          .n_ctx = 40960, .rope_theta = 1e6f } },
        { "qwen3-30b-a3b", { .arch = "qwen3moe", .dim = 2048, .n_layers = 48, .n_heads = 32,
                             .n_kv_heads = 4, .head_dim = 128, .ffn = 768, .n_experts = 128,
                             .n_used = 8, .vocab = 151936, .n_ctx = 40960, .rope_theta = 1e6f,
                             .untied = true } },
        { "gpt-oss-20b", { .arch = "gpt-oss", .dim = 2880, .n_layers = 24, .n_heads = 64,
                           .n_kv_heads = 8, .head_dim = 64, .ffn = 2880, .n_experts = 32,
                           .n_used = 4, .vocab = 201088, .window = 128, .rope_theta = 150000,
                           .rope_type = "yarn", .rope_scale = 32, .rope_ctx = 4096,
                           .untied = true } },
        { "gemma3-1b", { .arch = "gemma3", .dim = 1152, .n_layers = 26, .n_heads = 4,
                         .n_kv_heads = 1, .head_dim = 256, .ffn = 6912, .vocab = 262144,
                         .n_ctx = 32768, .window = 512, .rope_theta = 1e6f } },
    };
    for (size_t i = 0; i < WN_COUNT(presets); i++)
        if (!strcmp(name, presets[i].name)) {
            *o = presets[i].o;
            return true;
        }
    return false;
}

static wn_status settle_arch(wn_generate_opts *o, const arch **a, wn_err *err)
{
    *a = NULL;
    for (size_t i = 0; i < WN_COUNT(archs); i++)
        if (!strcmp(o->arch, archs[i].name)) *a = &archs[i];
    if (!*a) return wn_fail(err, WN_EINVAL, "arch %s is not one of %s", o->arch, wn_generate_archs);
    if ((*a)->experts && !o->n_experts) o->n_experts = 8;
    if (!o->n_used) o->n_used = WN_MIN(2, o->n_experts);
    if (!o->rope_type) o->rope_type = "linear";
    if (!o->rope_dims) o->rope_dims = o->head_dim;
    if (!o->rope_ctx)
        o->rope_ctx = o->rope_scale > 0 ? (int)((float)o->n_ctx / o->rope_scale) : o->n_ctx;
    if (strcmp(o->rope_type, "linear") && strcmp(o->rope_type, "yarn") &&
        strcmp(o->rope_type, "longrope"))
        return wn_fail(err, WN_EINVAL, "rope %s is not one of linear, yarn, longrope",
                       o->rope_type);
    if (o->n_experts && strcmp(o->arch, "llama") && !(*a)->experts)
        return wn_fail(err, WN_EINVAL, "arch %s has no experts", o->arch);
    if (o->n_experts < 0 || o->n_experts > 4096 || o->n_used < 0 || o->n_used > o->n_experts ||
        o->window < 0 || o->rope_ctx < 1 || o->rope_dims % 2 || o->rope_dims < 2 ||
        o->rope_dims > o->head_dim)
        return wn_fail(err, WN_EINVAL,
                       "%d experts, %d used, window %d, rope of %d and %d channels: out of range",
                       o->n_experts, o->n_used, o->window, o->rope_ctx, o->rope_dims);
    return WN_OK;
}

static wn_status settle(wn_generate_opts *o, const mix **m, const arch **a, wn_err *err)
{
    if (!o->arch) o->arch = "llama";
    if (!o->type) o->type = "F16";
    if (!o->dim) o->dim = 2048;
    if (!o->n_layers) o->n_layers = 16;
    if (!o->head_dim) o->head_dim = 64;
    if (!o->n_heads) o->n_heads = WN_MAX(o->dim / o->head_dim, 1);
    if (!o->n_kv_heads) o->n_kv_heads = o->n_heads;
    if (!o->ffn) o->ffn = 4 * o->dim;
    if (!o->vocab) o->vocab = 32000;
    if (!o->n_ctx) o->n_ctx = 131072;
    if (!(o->rope_theta > 0)) o->rope_theta = 500000;
    *m = NULL;
    for (size_t i = 0; i < WN_COUNT(mixes); i++)
        if (!strcmp(o->type, mixes[i].name)) *m = &mixes[i];
    if (!*m) return wn_fail(err, WN_EINVAL, "type %s is not one of %s", o->type, wn_generate_types);
    wn_status st = settle_arch(o, a, err);
    if (st) return st;
    if (o->dim < 1 || o->dim > 1 << 16 || o->n_layers < 1 || o->n_layers > 1000 || o->ffn < 1 ||
        o->ffn > 1 << 18 || o->n_heads < 1 || o->n_heads > 1024 || o->head_dim < 2 ||
        o->head_dim > 1024 || o->n_ctx < 1)
        return wn_fail(err, WN_EINVAL,
                       "dim %d, %d layers, %d heads of %d, ffn %d, ctx %d: out of range", o->dim,
                       o->n_layers, o->n_heads, o->head_dim, o->ffn, o->n_ctx);
    if (o->n_kv_heads < 1 || o->n_heads % o->n_kv_heads)
        return wn_fail(err, WN_EINVAL, "%d heads cannot share %d key-value heads", o->n_heads,
                       o->n_kv_heads);
    if (o->head_dim % 2) return wn_fail(err, WN_EINVAL, "head_dim %d is odd", o->head_dim);
    if (o->vocab < 256 + 3 || o->vocab > 1 << 20)
        return wn_fail(err, WN_EINVAL, "vocab %d is not in 259 to %d", o->vocab, 1 << 20);
    return WN_OK;
}

/* ---- vocabulary ------------------------------------------------------------------------ */

/* 256 byte tokens, then words, then the special tokens. A word is a prefix and a letter,
 * and its prefix is a token: all words of two characters come first, then of three, and so
 * on, so that word number i is made from prefix i / 26 and letter i % 26, and each has
 * exactly one merge. The first characters are a space and the letters. */
enum { N_SPECIAL = 3, TOKEN_BYTES = 24 };
static const char letters[] = "etaoinshrdlcumwfgypbvkjxqz";
static const char *const special[N_SPECIAL] = { "<|endoftext|>", "<|im_start|>", "<|im_end|>" };

typedef struct {
    char (*text)[TOKEN_BYTES];      /* (vocab) */
    char (*merge)[TOKEN_BYTES];     /* (vocab - 256 - N_SPECIAL) */
    const char **list;              /* (vocab) what the writer wants */
    int32_t *kind;                  /* (vocab) 1 normal, 3 control */
} vocabulary;

static int put_utf8(char *s, int c)
{
    if (c < 0x80) {
        s[0] = (char)c;
        s[1] = '\0';
        return 1;
    }
    s[0] = (char)(0xc0 | c >> 6);
    s[1] = (char)(0x80 | (c & 63));
    s[2] = '\0';
    return 2;
}

/* Byte-level vocabularies write a byte as a visible character: itself where it is one in
 * Latin-1, otherwise the next free one from 256 on. */
static void byte_token(char *s, int byte)
{
    int next = 256;
    for (int b = 0; b <= byte; b++) {
        bool visible = (b > 32 && b < 127) || (b > 160 && b != 173);
        if (b == byte) put_utf8(s, visible ? b : next);
        else if (!visible) next++;
    }
}

static void make_words(vocabulary *v, int vocab)
{
    char first[27][4];
    put_utf8(first[0], 0x120);          /* the space, as byte_token(32) writes it */
    for (int i = 0; i < 26; i++) put_utf8(first[i + 1], letters[i]);
    for (int i = 0; i < vocab - 256 - N_SPECIAL; i++) {
        const char *prefix = i < 27 * 26 ? first[i / 26] : v->text[256 + i / 26 - 27];
        snprintf(v->merge[i], TOKEN_BYTES, "%.18s %c", prefix, letters[i % 26]);
        snprintf(v->text[256 + i], TOKEN_BYTES, "%.18s%c", prefix, letters[i % 26]);
    }
}

static void vocabulary_release(vocabulary *v)
{
    wn_free(v->text);
    wn_free(v->merge);
    wn_free(v->list);
    wn_free(v->kind);
}

static wn_status put_vocabulary(wn_gguf_writer *w, int vocab, wn_err *err)
{
    wn_status st = WN_OK;
    vocabulary v = { wn_calloc((size_t)vocab, TOKEN_BYTES), wn_calloc((size_t)vocab, TOKEN_BYTES),
                     WN_NEW_ARRAY(const char *, vocab), WN_NEW_ARRAY(int32_t, vocab) };
    if (!v.text || !v.merge || !v.list || !v.kind) {
        st = wn_fail(err, WN_ENOMEM, "out of memory for a vocabulary of %d", vocab);
        goto done;
    }
    for (int b = 0; b < 256; b++) byte_token(v.text[b], b);
    make_words(&v, vocab);
    for (int i = 0; i < N_SPECIAL; i++)
        snprintf(v.text[vocab - N_SPECIAL + i], TOKEN_BYTES, "%s", special[i]);
    for (int i = 0; i < vocab; i++) {
        v.list[i] = v.text[i];
        v.kind[i] = i < vocab - N_SPECIAL ? 1 : 3;
    }
    wn_gguf_put_string(w, "tokenizer.ggml.model", "gpt2");
    wn_gguf_put_string(w, "tokenizer.ggml.pre", "qwen2");
    wn_gguf_put_strings(w, "tokenizer.ggml.tokens", v.list, (size_t)vocab);
    wn_gguf_put_i32s(w, "tokenizer.ggml.token_type", v.kind, (size_t)vocab);
    for (int i = 0; i < vocab - 256 - N_SPECIAL; i++) v.list[i] = v.merge[i];
    wn_gguf_put_strings(w, "tokenizer.ggml.merges", v.list, (size_t)(vocab - 256 - N_SPECIAL));
    wn_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)vocab - 3);
    wn_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)vocab - 1);
    wn_gguf_put_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)vocab - 3);
    wn_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false);
    wn_gguf_put_string(w, "tokenizer.chat_template",
                       "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
                       "message['content'] + '<|im_end|>\\n' }}{% endfor %}"
                       "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
done:
    vocabulary_release(&v);
    return st;
}

/* ---- metadata --------------------------------------------------------------------------- */

static const char *arch_key(const wn_generate_opts *o, const char *key, char buf[static 96])
{
    snprintf(buf, 96, "%.20s.%s", o->arch, key);
    return buf;
}

static void put_rope(wn_gguf_writer *w, const wn_generate_opts *o)
{
    char key[96];
    wn_gguf_put_f32(w, arch_key(o, "rope.freq_base", key), o->rope_theta);
    if (!(o->rope_scale > 0)) return;
    wn_gguf_put_string(w, arch_key(o, "rope.scaling.type", key), o->rope_type);
    if (!strcmp(o->rope_type, "longrope")) {    /* the attention factor of Ding et al., "LongRoPE",
                                                   2024 */
        float length = sqrtf(1 + logf(o->rope_scale) / logf((float)o->rope_ctx));
        wn_gguf_put_f32(w, arch_key(o, "rope.scaling.attn_factor", key), length);
    } else {
        wn_gguf_put_f32(w, arch_key(o, "rope.scaling.factor", key), o->rope_scale);
    }
    if (strcmp(o->rope_type, "linear"))
        wn_gguf_put_u32(w, arch_key(o, "rope.scaling.original_context_length", key),
                        (uint32_t)o->rope_ctx);
}

static void put_metadata(wn_gguf_writer *w, const wn_generate_opts *o, const mix *m, const arch *a)
{
    char key[96], name[64];
    const struct { const char *key; int value; } numbers[] = {
        { "context_length", o->n_ctx },          { "embedding_length", o->dim },
        { "block_count", o->n_layers },          { "feed_forward_length", o->ffn },
        { "attention.head_count", o->n_heads },  { "attention.head_count_kv", o->n_kv_heads },
        { "attention.key_length", o->head_dim }, { "attention.value_length", o->head_dim },
        { "rope.dimension_count", o->rope_dims }, { "vocab_size", o->vocab },
    };
    snprintf(name, sizeof name, "random %s", o->arch);
    wn_gguf_put_string(w, "general.architecture", o->arch);
    wn_gguf_put_string(w, "general.name", o->name ? o->name : name);
    wn_gguf_put_u32(w, "general.file_type", m->file_type);
    wn_gguf_put_u32(w, "general.quantization_version", 2);
    for (size_t i = 0; i < WN_COUNT(numbers); i++)
        wn_gguf_put_u32(w, arch_key(o, numbers[i].key, key), (uint32_t)numbers[i].value);
    put_rope(w, o);
    wn_gguf_put_f32(w, arch_key(o, "attention.layer_norm_rms_epsilon", key), 1e-5f);
    if (o->window)
        wn_gguf_put_u32(w, arch_key(o, "attention.sliding_window", key), (uint32_t)o->window);
    if (!strcmp(o->arch, "gemma2")) {
        wn_gguf_put_f32(w, arch_key(o, "attn_logit_softcapping", key), 50);
        wn_gguf_put_f32(w, arch_key(o, "final_logit_softcapping", key), 30);
    }
    if (!o->n_experts) return;
    wn_gguf_put_u32(w, arch_key(o, "expert_count", key), (uint32_t)o->n_experts);
    wn_gguf_put_u32(w, arch_key(o, "expert_used_count", key), (uint32_t)o->n_used);
    if (a->own_ffn_key)
        wn_gguf_put_u32(w, arch_key(o, "expert_feed_forward_length", key), (uint32_t)o->ffn);
}

/* ---- weights ---------------------------------------------------------------------------- */

enum { PIECE = 1 << 16, PIECES = 256 };     /* values of a piece; pieces made at a time */

typedef struct {
    const wn_generate_opts *o;
    const mix *m;
    const arch *a;
    wn_gguf_writer *w;
    wn_threads *threads;
    bool fill;                      /* second walk: make the data */
    uint64_t n;                     /* tensors so far */
    uint8_t *buf;                   /* (PIECES x PIECE values) */
    wn_status st;
    wn_err *err;
} walk;

typedef struct {
    uint8_t *buf;
    wn_type type;
    int64_t n;
    float mean, sd;
    uint64_t seed;
} fill_job;

static void fill_piece(void *arg, int part, int thread)
{
    const fill_job *j = arg;
    const wn_type_info *info = wn_type_find((uint32_t)j->type);
    int64_t from = (int64_t)part * PIECE, n = WN_MIN(j->n - from, (int64_t)PIECE);
    uint64_t seed = j->seed + (uint64_t)part;
    (void)thread;
    wn_noise(j->buf + (size_t)(from / info->block) * info->block_bytes, j->type, n, j->mean, j->sd,
             wn_noise_next(&seed));
}

/* `count` matrices of rows behind each other. */
static void stack(walk *k, const char *name, wn_type type, int64_t cols, int64_t rows,
                  int64_t count, float mean, float sd)
{
    int64_t n = cols * rows * count, most = (int64_t)PIECES * PIECE;
    uint64_t seed = k->o->seed * 0x9e3779b97f4a7c15u + ++k->n;
    if (k->st) return;
    if (!k->fill) {
        wn_gguf_put_tensor(k->w, name, type,
                           count > 1  ? 3
                           : rows > 1 ? 2
                                      : 1,
                           (int64_t[]){ cols, rows, count });
        return;
    }
    for (int64_t from = 0; from < n && !k->st; from += most) {
        uint64_t s = seed ^ (uint64_t)from << 20;
        fill_job j = { k->buf, type, WN_MIN(n - from, most), mean, sd, wn_noise_next(&s) };
        wn_threads_run(k->threads, fill_piece, &j, (int)((j.n + PIECE - 1) / PIECE));
        k->st = wn_gguf_writer_data(k->w, k->buf, wn_type_row_bytes(type, j.n), k->err);
    }
}

static void tensor(walk *k, const char *name, wn_type type, int64_t cols, int64_t rows, float mean,
                   float sd)
{
    stack(k, name, type, cols, rows, 1, mean, sd);
}

static wn_type that_divides(wn_type t, int64_t cols)
{
    if (cols % wn_type_find((uint32_t)t)->block == 0) return t;
    return cols % 32 == 0 ? WN_TYPE_Q8_0 : WN_TYPE_F16;
}

/* Each output gets the spread gain, for inputs of spread 1. */
static void matrix(walk *k, const char *name, wn_type type, int cols, int rows, float gain)
{
    tensor(k, name, that_divides(type, cols), cols, rows, 0, gain / sqrtf((float)cols));
}

/* Divisors of the rotary rates: the slower half is slowed further, up to `most` times. */
static void rope_divisors(walk *k, const char *name, float most)
{
    int n = k->o->rope_dims / 2;
    float f[512];                   /* head_dim is at most 1024 */
    k->n++;
    if (k->st) return;
    if (!k->fill) {
        wn_gguf_put_tensor(k->w, name, WN_TYPE_F32, 1, (int64_t[]){ n });
        return;
    }
    for (int i = 0, half = n / 2; i < n; i++)
        f[i] = i < half ? 1 : 1 + (most - 1) * (float)(i - half) / (float)WN_MAX(n - half - 1, 1);
    k->st = wn_gguf_writer_data(k->w, f, sizeof *f * (size_t)n, k->err);
}

/* The layers whose attn_v and ffn_down a mix gives more bits: the first and the last
 * eighth, and every third of the others. */
static bool wants_more_bits(int layer, int n)
{
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

#define NAME(s) (snprintf(name, sizeof name, "blk.%d." s, i), name)

static void attention(walk *k, int i)
{
    const wn_generate_opts *o = k->o;
    char name[64];
    int q = o->n_heads * o->head_dim, kv = o->n_kv_heads * o->head_dim;
    wn_type most = k->m->most, more = wants_more_bits(i, o->n_layers) ? k->m->more : most;
    tensor(k, NAME("attn_norm.weight"), WN_TYPE_F32, o->dim, 1, 1, 0.1f);
    if (k->a->fused) {
        matrix(k, NAME("attn_qkv.weight"), most, o->dim, q + 2 * kv, 1);
    } else {
        matrix(k, NAME("attn_q.weight"), most, o->dim, q, 1);
        matrix(k, NAME("attn_k.weight"), most, o->dim, kv, 1);
        matrix(k, NAME("attn_v.weight"), more, o->dim, kv, 1);
    }
    if (k->a->biases) {
        tensor(k, NAME("attn_q.bias"), WN_TYPE_F32, q, 1, 0, 0.1f);
        tensor(k, NAME("attn_k.bias"), WN_TYPE_F32, kv, 1, 0, 0.1f);
        tensor(k, NAME("attn_v.bias"), WN_TYPE_F32, kv, 1, 0, 0.1f);
    }
    if (k->a->norms || k->a->wide_norms) {
        tensor(k, NAME("attn_q_norm.weight"), WN_TYPE_F32, k->a->wide_norms ? q : o->head_dim, 1, 1,
               0.1f);
        tensor(k, NAME("attn_k_norm.weight"), WN_TYPE_F32, k->a->wide_norms ? kv : o->head_dim, 1,
               1, 0.1f);
    }
    if (k->a->sinks) {
        tensor(k, NAME("attn_sinks.weight"), WN_TYPE_F32, o->n_heads, 1, 1, 1);
        tensor(k, NAME("attn_output.bias"), WN_TYPE_F32, o->dim, 1, 0, 0.1f);
    }
    matrix(k, NAME("attn_output.weight"), most, q, o->dim, 1);
    if (k->a->post_norms)
        tensor(k, NAME("post_attention_norm.weight"), WN_TYPE_F32, o->dim, 1, 1, 0.1f);
}

static void experts(walk *k, int i)
{
    const wn_generate_opts *o = k->o;
    char name[64];
    wn_type most = k->m->most, more = wants_more_bits(i, o->n_layers) ? k->m->more : most;
    wn_type in = that_divides(most, o->dim), out = that_divides(more, o->ffn);
    float sd = 1 / sqrtf((float)o->dim);
    tensor(k, NAME("ffn_gate_inp.weight"), WN_TYPE_F32, o->dim, o->n_experts, 0, sd);
    stack(k, NAME("ffn_gate_exps.weight"), in, o->dim, o->ffn, o->n_experts, 0, sd);
    stack(k, NAME("ffn_up_exps.weight"), in, o->dim, o->ffn, o->n_experts, 0, sd);
    stack(k, NAME("ffn_down_exps.weight"), out, o->ffn, o->dim, o->n_experts, 0,
          1 / sqrtf((float)o->ffn));
    if (!k->a->biases) return;
    tensor(k, NAME("ffn_gate_inp.bias"), WN_TYPE_F32, o->n_experts, 1, 0, 0.1f);
    tensor(k, NAME("ffn_gate_exps.bias"), WN_TYPE_F32, o->ffn, o->n_experts, 0, 0.1f);
    tensor(k, NAME("ffn_up_exps.bias"), WN_TYPE_F32, o->ffn, o->n_experts, 0, 0.1f);
    tensor(k, NAME("ffn_down_exps.bias"), WN_TYPE_F32, o->dim, o->n_experts, 0, 0.1f);
}

static void layer(walk *k, int i)
{
    const wn_generate_opts *o = k->o;
    char name[64];
    wn_type most = k->m->most, more = wants_more_bits(i, o->n_layers) ? k->m->more : most;
    attention(k, i);
    tensor(k, k->a->sinks ? NAME("post_attention_norm.weight") : NAME("ffn_norm.weight"),
           WN_TYPE_F32, o->dim, 1, 1, 0.1f);
    if (o->n_experts) {
        experts(k, i);
        return;
    }
    if (k->a->fused) {
        matrix(k, NAME("ffn_up.weight"), most, o->dim, 2 * o->ffn, 1);
    } else {
        matrix(k, NAME("ffn_gate.weight"), most, o->dim, o->ffn, 1);
        matrix(k, NAME("ffn_up.weight"), most, o->dim, o->ffn, 1);
    }
    matrix(k, NAME("ffn_down.weight"), more, o->ffn, o->dim, 1);
    if (k->a->post_norms) tensor(k, NAME("post_ffw_norm.weight"), WN_TYPE_F32, o->dim, 1, 1, 0.1f);
}
#undef NAME

/* A tied embedding is small enough for its second life as the output matrix; the first
 * norm makes up for it. */
static wn_status all_tensors(walk *k, bool fill)
{
    const wn_generate_opts *o = k->o;
    k->fill = fill;
    k->n = 0;
    if (o->untied)
        tensor(k, "token_embd.weight", that_divides(k->m->most, o->dim), o->dim, o->vocab, 0, 1);
    else
        matrix(k, "token_embd.weight", k->m->head, o->dim, o->vocab, 2.5f);
    tensor(k, "output_norm.weight", WN_TYPE_F32, o->dim, 1, 1, 0.1f);
    if (o->untied) matrix(k, "output.weight", k->m->head, o->dim, o->vocab, 2.5f);
    if (o->rope_freqs) rope_divisors(k, "rope_freqs.weight", 8);
    if (o->rope_scale > 0 && !strcmp(o->rope_type, "longrope")) {
        rope_divisors(k, "rope_factors_short.weight", 2);
        rope_divisors(k, "rope_factors_long.weight", 4 * o->rope_scale);
    }
    for (int i = 0; i < o->n_layers; i++) layer(k, i);
    return k->st;
}

wn_status wn_generate(const char *path, const wn_generate_opts *opts, wn_threads *t, wn_err *err)
{
    wn_generate_opts o = *opts;
    walk k = { .o = &o, .threads = t, .err = err };
    wn_status st = settle(&o, &k.m, &k.a, err), closed;
    if (st) return st;
    if ((st = wn_gguf_writer_open(&k.w, path, err))) return st;
    k.buf = wn_alloc((size_t)PIECES * PIECE * sizeof(float));
    if (!k.buf) st = wn_fail(err, WN_ENOMEM, "out of memory for %d values", PIECES * PIECE);
    if (!st) {
        put_metadata(k.w, &o, k.m, k.a);
        st = put_vocabulary(k.w, o.vocab, err);
    }
    if (!st) st = all_tensors(&k, false);
    if (!st) st = all_tensors(&k, true);
    wn_free(k.buf);
    closed = wn_gguf_writer_close(k.w, st ? NULL : err);    /* keeps the first sentence */
    return st ? st : closed;
}
