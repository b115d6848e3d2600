/* The definition of the architectures, in double. One layer at a time, all positions
 * together; the cache is the arrays k and v. See reference.h.
 *
 *   x = embedding                                            gemma: times sqrt(n_embd)
 *   per layer:  h = rmsnorm(x);  q, k, v = h W + b           phi3: rows of one W
 *               q, k = rmsnorm per head                      qwen3, qwen3moe, gemma3; olmoe: over all heads
 *               rotate q, k                                  smollm3: not in each fourth layer
 *               a = softmax(q k scale) v                     gemma2: soft-capped; gpt-oss: with sinks; windows
 *               x += W_o a                                   gemma: rmsnorm of what is added
 *               h = rmsnorm(x);  x += W_down (silu(h W_gate) * (h W_up))
 *                                                            gemma: gelu, and normed; or a mixture of such
 *   logits = rmsnorm(x) W_out                                gemma2: soft-capped
 */
#include "tests/support/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const wn_gguf *g;
    wn_err *err;
    char arch[16];
    int dim, n_layers, n_heads, n_kv_heads, k_dim, v_dim, rope_dims, n_vocab;
    int window, n_experts, n_used;
    double eps, rope_base;
    bool neox, gemma;
    const wn_tensor *divisors;          /* of the rates, or NULL */
    double yarn, linear, length;        /* factors; what is rotated gets so much longer */
    int n_ctx_rope;                     /* context before yarn */
} model;

/* ---- reading ------------------------------------------------------------------------ */

static int64_t get_int(model *m, const char *key, int64_t otherwise)
{
    char full[64];
    int64_t v = otherwise;
    wn_err ignored;
    snprintf(full, sizeof full, "%s.%s", m->arch, key);
    if (wn_gguf_int(m->g, full, false, 0, INT32_MAX, &v, &ignored)) return -1;
    return v;
}

static double get_float(model *m, const char *key, double otherwise)
{
    char full[64];
    double v = otherwise;
    wn_err ignored;
    snprintf(full, sizeof full, "%s.%s", m->arch, key);
    if (wn_gguf_float(m->g, full, false, &v, &ignored)) return NAN;
    return v;
}

static const wn_tensor *get_tensor(const model *m, int layer, const char *name)
{
    char full[64];
    if (layer < 0) return wn_gguf_tensor(m->g, name);
    snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    return wn_gguf_tensor(m->g, full);
}

static bool is(const model *m, const char *arch) { return !strcmp(m->arch, arch); }

static bool scaling_is(model *m, const char *type)
{
    wn_str s = { 0 };
    char key[64];
    wn_err ignored;
    snprintf(key, sizeof key, "%s.rope.scaling.type", m->arch);
    return wn_gguf_string(m->g, key, false, &s, &ignored) == WN_OK && s.p && wn_str_is(s, type);
}

static void read_rope(model *m, int n_tokens)
{
    m->rope_base = get_float(m, "rope.freq_base", 10000.0);
    m->n_ctx_rope = (int)get_int(m, "rope.scaling.original_context_length",
                                 get_int(m, "context_length", 0));
    m->linear = scaling_is(m, "linear") ? get_float(m, "rope.scaling.factor", 1.0) : 1.0;
    m->yarn = scaling_is(m, "yarn") ? get_float(m, "rope.scaling.factor", 1.0) : 0.0;
    m->length = get_float(m, "rope.scaling.attn_factor", 1.0);
    if (m->yarn > 1.0) m->length *= 0.1 * log(m->yarn) + 1.0;
    m->divisors = get_tensor(m, -1, "rope_freqs.weight");
    if (!m->divisors)
        m->divisors = get_tensor(m, -1,
                                 n_tokens > m->n_ctx_rope ? "rope_factors_long.weight"
                                                          : "rope_factors_short.weight");
}

static wn_status read_model(model *m, int n_tokens)
{
    wn_str arch = { 0 };
    wn_status st = wn_gguf_string(m->g, "general.architecture", true, &arch, m->err);
    if (st) return st;
    snprintf(m->arch, sizeof m->arch, "%.*s", (int)arch.n, arch.p);
    static const char *const known[] = { "llama", "qwen2",   "qwen3",    "gemma2", "gemma3",
                                         "phi3",  "smollm3", "qwen3moe", "olmoe",  "gpt-oss" };
    bool found = false;
    for (size_t i = 0; i < WN_COUNT(known); i++) found |= is(m, known[i]);
    if (!found)
        return wn_fail(m->err, WN_EUNSUPPORTED, "the reference does not know architecture %s",
                       m->arch);
    m->neox = !is(m, "llama") && !is(m, "smollm3");
    m->gemma = is(m, "gemma2") || is(m, "gemma3");
    m->dim = (int)get_int(m, "embedding_length", 0);
    m->n_layers = (int)get_int(m, "block_count", 0);
    m->n_heads = (int)get_int(m, "attention.head_count", 0);
    m->n_kv_heads = (int)get_int(m, "attention.head_count_kv", m->n_heads);
    if (m->dim <= 0 || m->n_layers <= 0 || m->n_heads <= 0 || m->n_kv_heads <= 0)
        return wn_fail(m->err, WN_EFORMAT, "the reference needs dimensions and heads");
    m->k_dim = (int)get_int(m, "attention.key_length", m->dim / m->n_heads);
    m->v_dim = (int)get_int(m, "attention.value_length", m->dim / m->n_heads);
    m->rope_dims = (int)get_int(m, "rope.dimension_count", m->k_dim);
    m->eps = get_float(m, "attention.layer_norm_rms_epsilon", 1e-5);
    m->window = (int)get_int(m, "attention.sliding_window", 0);
    m->n_experts = (int)get_int(m, "expert_count", 0);
    m->n_used = (int)get_int(m, "expert_used_count", 0);
    read_rope(m, n_tokens);
    const wn_tensor *embd = get_tensor(m, -1, "token_embd.weight");
    if (!embd) return wn_fail(m->err, WN_EFORMAT, "the reference needs token_embd.weight");
    m->n_vocab = (int)embd->ne[1];
    return WN_OK;
}

/* Row r of a tensor as doubles (a vector has one row). */
static void row(const wn_tensor *t, int64_t r, double *out)
{
    float *f = malloc((size_t)t->ne[0] * sizeof *f);
    wn_type_find(t->type)->decode(f, t->data + (size_t)r * wn_type_row_bytes(t->type, t->ne[0]),
                                  t->ne[0]);
    for (int64_t i = 0; i < t->ne[0]; i++) out[i] = (double)f[i];
    free(f);
}

static double *doubles(int64_t n)
{
    double *p = calloc((size_t)n, sizeof *p);
    if (!p) abort();
    return p;
}

/* ---- steps --------------------------------------------------------------------------- */

/* Eight sums, so that a compiler may use vectors; in double their order does not matter. */
static double dot(const double *a, const double *b, int n)
{
    double s[8] = { 0 };
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) s[j] += a[i + j] * b[i + j];
    for (; i < n; i++) s[0] += a[i] * b[i];
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

/* y[t] = W x[t] + b for n rows of x, W being `rows` rows of a tensor from `first` on (a stack
 * of matrices counts as one), b row `b_row` of bias; y is (n, rows), allocated. */
static double *linear_rows(const double *x, int n, const wn_tensor *w, int64_t first, int rows,
                           const wn_tensor *bias, int b_row)
{
    int cols = (int)w->ne[0];
    double *y = doubles((int64_t)n * rows), *wr = doubles(cols), *b = doubles(rows);
    if (bias) row(bias, b_row, b);
    for (int r = 0; r < rows; r++) {
        row(w, first + r, wr);
        for (int t = 0; t < n; t++)
            y[(size_t)t * (size_t)rows + (size_t)r] = dot(wr, x + (size_t)t * (size_t)cols, cols) +
                                                      b[r];
    }
    free(wr);
    free(b);
    return y;
}

static double *linear(const double *x, int n, const wn_tensor *w, const wn_tensor *bias)
{
    return linear_rows(x, n, w, 0, (int)w->ne[1], bias, 0);
}

/* n rows of d values: out = x / sqrt(mean(x^2) + eps) * w; out may be x. */
static void rms_norm(double *out, const double *x, int64_t n, int d, const wn_tensor *w, double eps)
{
    double *wr = doubles(d);
    row(w, 0, wr);
    for (int64_t t = 0; t < n; t++) {
        const double *xt = x + t * d;
        double scale = 1.0 / sqrt(dot(xt, xt, d) / d + eps);
        for (int i = 0; i < d; i++) out[t * d + i] = xt[i] * scale * wr[i];
    }
    free(wr);
}

/* Does the layer see m->window positions only? */
static bool windowed(const model *m, int l)
{
    if (!m->window) return false;
    if (is(m, "gemma2") || is(m, "gpt-oss")) return l % 2 == 0;
    if (is(m, "gemma3")) return l % 6 != 5;
    return is(m, "llama") || is(m, "phi3");
}

/* Radians per position of pair j. YaRN (Peng et al., 2023): a pair keeps its rate where its
 * number is at most `low` (it turns 32 times in the context before), has it divided by the
 * factor from `high` on (it turns once), and is blended linearly in between. */
static double rate(const model *m, int l, int j, const double *divisor)
{
    double base = m->rope_base, full;
    if (is(m, "gemma3") && windowed(m, l)) return pow(10000.0, -2.0 * j / m->rope_dims);
    full = pow(base, -2.0 * j / m->rope_dims) / m->linear / divisor[j];
    if (!(m->yarn > 0)) return full;
    double low = m->rope_dims * log(m->n_ctx_rope / (32.0 * 2 * M_PI)) / (2 * log(base));
    double high = m->rope_dims * log(m->n_ctx_rope / (1.0 * 2 * M_PI)) / (2 * log(base));
    if (!is(m, "gpt-oss")) low = floor(low), high = ceil(high);
    low = fmax(low, 0), high = fmin(high, m->rope_dims - 1);
    double slowed = j <= low ? 0 : j >= high ? 1 : (j - low) / (high - low);
    return full * (1 - slowed) + full / m->yarn * slowed;
}

/* Rotates n positions of n_heads heads of k_dim values. */
static void rotate(const model *m, int l, double *x, int n, int n_heads)
{
    int half = m->rope_dims / 2;
    double *divisor = doubles(half), length = is(m, "gemma3") && windowed(m, l) ? 1 : m->length;
    if (is(m, "smollm3") && l % 4 == 3) {
        free(divisor);
        return;
    }
    for (int j = 0; j < half; j++) divisor[j] = 1.0;
    if (m->divisors) row(m->divisors, 0, divisor);
    for (int j = 0; j < half; j++) {
        double r = rate(m, l, j, divisor);
        for (int t = 0; t < n; t++) {
            double c = length * cos(r * t), s = length * sin(r * t);
            for (int h = 0; h < n_heads; h++) {
                double *head = x + ((int64_t)t * n_heads + h) * m->k_dim;
                double *a = head + (m->neox ? j : 2 * j),
                       *b = head + (m->neox ? j + half : 2 * j + 1);
                double xa = *a, xb = *b;
                *a = xa * c - xb * s;
                *b = xb * c + xa * s;
            }
        }
    }
    free(divisor);
}

/* Causal attention; query head h reads key/value head h / (n_heads / n_kv_heads). */
static double *attend(const model *m, int l, const double *q, const double *k, const double *v,
                      int n)
{
    int group = m->n_heads / m->n_kv_heads;
    const wn_tensor *sink_tensor = get_tensor(m, l, "attn_sinks.weight");
    double *out = doubles((int64_t)n * m->n_heads * m->v_dim), *p = doubles(n),
           *sinks = doubles(m->n_heads);
    double scale = 1 / sqrt((double)m->k_dim), cap = is(m, "gemma2") ? 50.0 : 0.0;
    if (sink_tensor) row(sink_tensor, 0, sinks);
    for (int h = 0; h < m->n_heads; h++)
        for (int t = 0; t < n; t++) {
            const double *qh = q + ((int64_t)t * m->n_heads + h) * m->k_dim;
            double *o = out + ((int64_t)t * m->n_heads + h) * m->v_dim;
            double top = sink_tensor ? sinks[h] : -INFINITY, sum = 0.0;
            int from = windowed(m, l) && t >= m->window ? t - m->window + 1 : 0;
            for (int s = from; s <= t; s++) {
                const double *kh = k + ((int64_t)s * m->n_kv_heads + h / group) * m->k_dim;
                p[s] = dot(qh, kh, m->k_dim) * scale;
                if (cap > 0) p[s] = cap * tanh(p[s] / cap);
                top = fmax(top, p[s]);
            }
            if (sink_tensor) sum = exp(sinks[h] - top);
            for (int s = from; s <= t; s++) sum += p[s] = exp(p[s] - top);
            for (int s = from; s <= t; s++) {
                const double *vh = v + ((int64_t)s * m->n_kv_heads + h / group) * m->v_dim;
                for (int i = 0; i < m->v_dim; i++) o[i] += p[s] / sum * vh[i];
            }
        }
    free(p);
    free(sinks);
    return out;
}

static void add_and_free(double *x, double *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] += y[i];
    free(y);
}

/* x += y, or its norm where the layer has one for it. */
static void add_half(const model *m, int l, double *x, double *y, int n, const char *post_norm)
{
    if (m->gemma) rms_norm(y, y, n, m->dim, get_tensor(m, l, post_norm), m->eps);
    add_and_free(x, y, (int64_t)n * m->dim);
}

static void attention_block(const model *m, int l, double *x, double *h, int n)
{
    const wn_tensor *fused = get_tensor(m, l, "attn_qkv.weight");
    const wn_tensor *q_norm = get_tensor(m, l, "attn_q_norm.weight"),
                    *k_norm = get_tensor(m, l, "attn_k_norm.weight");
    int nq = m->n_heads * m->k_dim, nk = m->n_kv_heads * m->k_dim, nv = m->n_kv_heads * m->v_dim;
    double *q, *k, *v;
    rms_norm(h, x, n, m->dim, get_tensor(m, l, "attn_norm.weight"), m->eps);
    if (fused) {
        q = linear_rows(h, n, fused, 0, nq, NULL, 0);
        k = linear_rows(h, n, fused, nq, nk, NULL, 0);
        v = linear_rows(h, n, fused, nq + nk, nv, NULL, 0);
    } else {
        q = linear(h, n, get_tensor(m, l, "attn_q.weight"), get_tensor(m, l, "attn_q.bias"));
        k = linear(h, n, get_tensor(m, l, "attn_k.weight"), get_tensor(m, l, "attn_k.bias"));
        v = linear(h, n, get_tensor(m, l, "attn_v.weight"), get_tensor(m, l, "attn_v.bias"));
    }
    if (is(m, "olmoe")) {
        rms_norm(q, q, n, nq, q_norm, m->eps);
        rms_norm(k, k, n, nk, k_norm, m->eps);
    } else if (q_norm && k_norm) {
        rms_norm(q, q, (int64_t)n * m->n_heads, m->k_dim, q_norm, m->eps);
        rms_norm(k, k, (int64_t)n * m->n_kv_heads, m->k_dim, k_norm, m->eps);
    }
    rotate(m, l, q, n, m->n_heads);
    rotate(m, l, k, n, m->n_kv_heads);
    double *o = attend(m, l, q, k, v, n);
    double *y = linear(o, n, get_tensor(m, l, "attn_output.weight"),
                       get_tensor(m, l, "attn_output.bias"));
    add_half(m, l, x, y, n, "post_attention_norm.weight");
    free(q);
    free(k);
    free(v);
    free(o);
}

static double gated(const model *m, double g, double u)
{
    if (m->gemma) return 0.5 * g * (1 + tanh(sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * u;
    if (!is(m, "gpt-oss")) return g / (1.0 + exp(-g)) * u;
    g = fmin(g, 7), u = fmax(-7, fmin(u, 7));
    return g / (1 + exp(-1.702 * g)) * (u + 1);
}

/* Adds weight times expert e of one row h to y. */
static void add_expert(const model *m, int l, int e, double weight, const double *h, double *y)
{
    const wn_tensor *gate_w = get_tensor(m, l, "ffn_gate_exps.weight");
    int ff = (int)gate_w->ne[1];
    double *gate = linear_rows(h, 1, gate_w, (int64_t)e * ff, ff,
                               get_tensor(m, l, "ffn_gate_exps.bias"), e);
    double *up = linear_rows(h, 1, get_tensor(m, l, "ffn_up_exps.weight"), (int64_t)e * ff, ff,
                             get_tensor(m, l, "ffn_up_exps.bias"), e);
    for (int i = 0; i < ff; i++) gate[i] = gated(m, gate[i], up[i]);
    double *o = linear_rows(gate, 1, get_tensor(m, l, "ffn_down_exps.weight"), (int64_t)e * m->dim,
                            m->dim, get_tensor(m, l, "ffn_down_exps.bias"), e);
    for (int i = 0; i < m->dim; i++) y[i] += weight * o[i];
    free(gate);
    free(up);
    free(o);
}

/* Softmax over all experts, the largest n_used of them; qwen3moe, llama and gpt-oss make them
 * sum to 1 (for the latter two a softmax over the chosen logits, which is the same). */
static double *mixture(const model *m, int l, const double *h, int n)
{
    double *p = linear(h, n, get_tensor(m, l, "ffn_gate_inp.weight"),
                       get_tensor(m, l, "ffn_gate_inp.bias"));
    double *y = doubles((int64_t)n * m->dim);
    for (int t = 0; t < n; t++) {
        double *pt = p + (int64_t)t * m->n_experts, top = -INFINITY, sum = 0, chosen_sum = 0;
        int chosen[64];
        for (int e = 0; e < m->n_experts; e++) top = fmax(top, pt[e]);
        for (int e = 0; e < m->n_experts; e++) sum += pt[e] = exp(pt[e] - top);
        for (int k = 0; k < m->n_used; k++) {
            chosen[k] = -1;
            for (int e = 0; e < m->n_experts; e++) {
                bool had = false;
                for (int i = 0; i < k; i++) had |= chosen[i] == e;
                if (!had && (chosen[k] < 0 || pt[e] > pt[chosen[k]])) chosen[k] = e;
            }
            chosen_sum += pt[chosen[k]];
        }
        for (int k = 0; k < m->n_used; k++)
            add_expert(m, l, chosen[k], pt[chosen[k]] / (is(m, "olmoe") ? sum : chosen_sum),
                       h + (int64_t)t * m->dim, y + (int64_t)t * m->dim);
    }
    free(p);
    return y;
}

static double *dense(const model *m, int l, const double *h, int n)
{
    const wn_tensor *gate_w = get_tensor(m, l, "ffn_gate.weight"),
                    *up_w = get_tensor(m, l, "ffn_up.weight");
    int ff = (int)(gate_w ? gate_w->ne[1] : up_w->ne[1] / 2);
    double *gate = linear_rows(h, n, gate_w ? gate_w : up_w, 0, ff, NULL, 0);
    double *up = linear_rows(h, n, up_w, gate_w ? 0 : ff, ff, NULL, 0);
    for (int64_t i = 0; i < (int64_t)n * ff; i++) gate[i] = gated(m, gate[i], up[i]);
    double *y = linear(gate, n, get_tensor(m, l, "ffn_down.weight"), NULL);
    free(gate);
    free(up);
    return y;
}

static void ffn_block(const model *m, int l, double *x, double *h, int n)
{
    const char *norm = is(m, "gpt-oss") ? "post_attention_norm.weight" : "ffn_norm.weight";
    rms_norm(h, x, n, m->dim, get_tensor(m, l, norm), m->eps);
    add_half(m, l, x, m->n_experts ? mixture(m, l, h, n) : dense(m, l, h, n), n,
             "post_ffw_norm.weight");
}

/* ---- the whole ------------------------------------------------------------------------ */

/* The steps above take tensors for granted: say which one is missing. */
static wn_status check_tensors(const model *m)
{
    static const char *const all[] = { "attn_norm.weight", "attn_output.weight", NULL };
    static const char *const apart[] = { "attn_q.weight", "attn_k.weight", "attn_v.weight", NULL };
    static const char *const one[] = { "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight",
                                       NULL };
    static const char *const fused[] = { "attn_qkv.weight", "ffn_up.weight", "ffn_down.weight",
                                         NULL };
    static const char *const experts[] = { "ffn_gate_inp.weight", "ffn_gate_exps.weight",
                                           "ffn_up_exps.weight", "ffn_down_exps.weight", NULL };
    static const char *const post[] = { "post_attention_norm.weight", "post_ffw_norm.weight",
                                        NULL };
    static const char *const none[] = { NULL };
    bool phi = is(m, "phi3");
    const char *const *need[] = { all, phi ? fused : apart,
                                  phi            ? none
                                  : m->n_experts ? experts
                                                 : one,
                                  m->gemma ? post : none };
    for (int l = 0; l < m->n_layers; l++)
        for (size_t i = 0; i < WN_COUNT(need); i++)
            for (const char *const *name = need[i]; *name; name++)
                if (!get_tensor(m, l, *name))
                    return wn_fail(m->err, WN_EFORMAT, "the reference needs blk.%d.%s", l, *name);
    if (!get_tensor(m, -1, "output_norm.weight"))
        return wn_fail(m->err, WN_EFORMAT, "the reference needs output_norm.weight");
    for (size_t i = 0; i < wn_gguf_n_tensors(m->g); i++) {
        const wn_tensor *t = wn_gguf_tensor_at(m->g, i);
        if (!wn_type_find(t->type)->decode)
            return wn_fail(m->err, WN_EUNSUPPORTED, "the reference cannot decode %s", t->name);
    }
    return WN_OK;
}

wn_status reference_logits(const char *path, const int32_t *tokens, int n_tokens, double **logits,
                           int *n_vocab, wn_err *err)
{
    wn_gguf *g;
    model m = { .err = err };
    wn_status st = wn_gguf_open(&g, path, err);
    *logits = NULL;
    if (st) return st;
    m.g = g;
    if ((st = read_model(&m, n_tokens)) || (st = check_tensors(&m))) {
        wn_gguf_close(g);
        return st;
    }
    const wn_tensor *embd = get_tensor(&m, -1, "token_embd.weight"),
                    *head = get_tensor(&m, -1, "output.weight");
    double *x = doubles((int64_t)n_tokens * m.dim), *h = doubles((int64_t)n_tokens * m.dim);
    for (int t = 0; t < n_tokens; t++) row(embd, tokens[t], x + (int64_t)t * m.dim);
    for (int64_t i = 0; m.gemma && i < (int64_t)n_tokens * m.dim; i++) x[i] *= sqrt((double)m.dim);
    for (int l = 0; l < m.n_layers; l++) {
        attention_block(&m, l, x, h, n_tokens);
        ffn_block(&m, l, x, h, n_tokens);
    }
    rms_norm(h, x, n_tokens, m.dim, get_tensor(&m, -1, "output_norm.weight"), m.eps);
    *logits = linear(h, n_tokens, head ? head : embd, NULL);
    for (int64_t i = 0; is(&m, "gemma2") && i < (int64_t)n_tokens * m.n_vocab; i++)
        (*logits)[i] = 30.0 * tanh((*logits)[i] / 30.0);
    *n_vocab = m.n_vocab;
    free(x);
    free(h);
    wn_gguf_close(g);
    return WN_OK;
}

reference_distance reference_compare(const float *got, const double *want, size_t n)
{
    double mean = 0.0, var = 0.0, sum = 0.0, max = 0.0;
    for (size_t i = 0; i < n; i++) mean += want[i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]);
        if (!(d < INFINITY)) return (reference_distance){ 0.0, INFINITY, INFINITY };
        var += (want[i] - mean) * (want[i] - mean);
        sum += d * d;
        max = fmax(max, d);
    }
    double std = sqrt(var / (double)n);
    return (reference_distance){ std, sqrt(sum / (double)n) / std, max / std };
}
