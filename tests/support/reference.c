/* The definition of the architectures, in double. One layer at a time, all positions
 * together; the cache is the arrays k and v. See reference.h.
 *
 *   x = embedding
 *   per layer:  h = rmsnorm(x);  q, k, v = h W + b;  (qwen3: q, k = rmsnorm per head)
 *               rotate q, k;  x += W_o softmax(q k / sqrt(d)) v
 *               h = rmsnorm(x);  x += W_down (silu(h W_gate) * (h W_up))
 *   logits = rmsnorm(x) W_out
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
    double eps, rope_base, rope_linear;
    bool neox;
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

static wn_status read_model(model *m)
{
    wn_str arch = { 0 };
    wn_status st = wn_gguf_string(m->g, "general.architecture", true, &arch, m->err);
    if (st) return st;
    snprintf(m->arch, sizeof m->arch, "%.*s", (int)arch.n, arch.p);
    if (strcmp(m->arch, "llama") && strcmp(m->arch, "qwen2") && strcmp(m->arch, "qwen3"))
        return wn_fail(m->err, WN_EUNSUPPORTED, "the reference does not know architecture %s", m->arch);
    m->neox = strcmp(m->arch, "llama") != 0;
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
    m->rope_base = get_float(m, "rope.freq_base", 10000.0);
    m->rope_linear = 1.0;
    wn_str scaling = { 0 };
    char key[64];
    snprintf(key, sizeof key, "%s.rope.scaling.type", m->arch);
    if (wn_gguf_string(m->g, key, false, &scaling, m->err) == WN_OK && wn_str_is(scaling, "linear"))
        m->rope_linear = get_float(m, "rope.scaling.factor", 1.0);
    const wn_tensor *embd = get_tensor(m, -1, "token_embd.weight");
    if (!embd) return wn_fail(m->err, WN_EFORMAT, "the reference needs token_embd.weight");
    m->n_vocab = (int)embd->ne[1];
    return WN_OK;
}

/* Row r of a tensor as doubles (a vector has one row). */
static void row(const wn_tensor *t, int64_t r, double *out)
{
    float *f = malloc((size_t)t->ne[0] * sizeof *f);
    wn_type_find(t->type)->decode(f, t->data + (size_t)r * wn_type_row_bytes(t->type, t->ne[0]), t->ne[0]);
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

/* y[t] = W x[t] + b for n rows of x; y is (n, outputs of W), allocated. */
static double *linear(const double *x, int n, const wn_tensor *w, const wn_tensor *bias)
{
    int cols = (int)w->ne[0], rows = (int)w->ne[1];
    double *y = doubles((int64_t)n * rows), *wr = doubles(cols), *b = doubles(rows);
    if (bias) row(bias, 0, b);
    for (int r = 0; r < rows; r++) {
        row(w, r, wr);
        for (int t = 0; t < n; t++) y[(size_t)t * (size_t)rows + (size_t)r] = dot(wr, x + (size_t)t * (size_t)cols, cols) + b[r];
    }
    free(wr);
    free(b);
    return y;
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

/* Rotates n positions of n_heads heads of k_dim values: pair j by the angle
 * position / linear * base^(-2j / rope_dims) / factor[j]. */
static void rotate(const model *m, double *x, int n, int n_heads)
{
    const wn_tensor *freqs = get_tensor(m, -1, "rope_freqs.weight");
    int half = m->rope_dims / 2;
    double *factor = doubles(half);
    for (int j = 0; j < half; j++) factor[j] = 1.0;
    if (freqs) row(freqs, 0, factor);
    for (int t = 0; t < n; t++)
        for (int j = 0; j < half; j++) {
            double angle = t / m->rope_linear * pow(m->rope_base, -2.0 * j / m->rope_dims) / factor[j];
            double c = cos(angle), s = sin(angle);
            for (int h = 0; h < n_heads; h++) {
                double *head = x + ((int64_t)t * n_heads + h) * m->k_dim;
                double *a = head + (m->neox ? j : 2 * j), *b = head + (m->neox ? j + half : 2 * j + 1);
                double xa = *a, xb = *b;
                *a = xa * c - xb * s;
                *b = xb * c + xa * s;
            }
        }
    free(factor);
}

/* Causal attention; query head h reads key/value head h / (n_heads / n_kv_heads). */
static double *attend(const model *m, const double *q, const double *k, const double *v, int n)
{
    int group = m->n_heads / m->n_kv_heads;
    double *out = doubles((int64_t)n * m->n_heads * m->v_dim), *p = doubles(n);
    for (int h = 0; h < m->n_heads; h++)
        for (int t = 0; t < n; t++) {
            const double *qh = q + ((int64_t)t * m->n_heads + h) * m->k_dim;
            double *o = out + ((int64_t)t * m->n_heads + h) * m->v_dim;
            double top = -INFINITY, sum = 0.0;
            for (int s = 0; s <= t; s++) {
                const double *kh = k + ((int64_t)s * m->n_kv_heads + h / group) * m->k_dim;
                p[s] = dot(qh, kh, m->k_dim) / sqrt((double)m->k_dim);
                top = fmax(top, p[s]);
            }
            for (int s = 0; s <= t; s++) sum += p[s] = exp(p[s] - top);
            for (int s = 0; s <= t; s++) {
                const double *vh = v + ((int64_t)s * m->n_kv_heads + h / group) * m->v_dim;
                for (int i = 0; i < m->v_dim; i++) o[i] += p[s] / sum * vh[i];
            }
        }
    free(p);
    return out;
}

static void add_and_free(double *x, double *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] += y[i];
    free(y);
}

static void attention_block(const model *m, int l, double *x, double *h, int n)
{
    rms_norm(h, x, n, m->dim, get_tensor(m, l, "attn_norm.weight"), m->eps);
    double *q = linear(h, n, get_tensor(m, l, "attn_q.weight"), get_tensor(m, l, "attn_q.bias"));
    double *k = linear(h, n, get_tensor(m, l, "attn_k.weight"), get_tensor(m, l, "attn_k.bias"));
    double *v = linear(h, n, get_tensor(m, l, "attn_v.weight"), get_tensor(m, l, "attn_v.bias"));
    const wn_tensor *q_norm = get_tensor(m, l, "attn_q_norm.weight");
    const wn_tensor *k_norm = get_tensor(m, l, "attn_k_norm.weight");
    if (q_norm) rms_norm(q, q, (int64_t)n * m->n_heads, m->k_dim, q_norm, m->eps);
    if (k_norm) rms_norm(k, k, (int64_t)n * m->n_kv_heads, m->k_dim, k_norm, m->eps);
    rotate(m, q, n, m->n_heads);
    rotate(m, k, n, m->n_kv_heads);
    double *o = attend(m, q, k, v, n);
    double *y = linear(o, n, get_tensor(m, l, "attn_output.weight"), get_tensor(m, l, "attn_output.bias"));
    add_and_free(x, y, (int64_t)n * m->dim);
    free(q);
    free(k);
    free(v);
    free(o);
}

static void ffn_block(const model *m, int l, double *x, double *h, int n)
{
    const wn_tensor *w_gate = get_tensor(m, l, "ffn_gate.weight");
    rms_norm(h, x, n, m->dim, get_tensor(m, l, "ffn_norm.weight"), m->eps);
    double *gate = linear(h, n, w_gate, NULL);
    double *up = linear(h, n, get_tensor(m, l, "ffn_up.weight"), NULL);
    for (int64_t i = 0; i < n * w_gate->ne[1]; i++) gate[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
    double *y = linear(gate, n, get_tensor(m, l, "ffn_down.weight"), NULL);
    add_and_free(x, y, (int64_t)n * m->dim);
    free(gate);
    free(up);
}

/* ---- the whole ------------------------------------------------------------------------ */

/* The steps above take tensors for granted: say which one is missing. */
static wn_status check_tensors(const model *m)
{
    static const char *const need[] = { "attn_norm.weight", "attn_q.weight", "attn_k.weight",
        "attn_v.weight", "attn_output.weight", "ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight",
        "ffn_down.weight" };
    for (int l = 0; l < m->n_layers; l++)
        for (size_t i = 0; i < WN_COUNT(need); i++)
            if (!get_tensor(m, l, need[i]))
                return wn_fail(m->err, WN_EFORMAT, "the reference needs blk.%d.%s", l, need[i]);
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
    if ((st = read_model(&m)) || (st = check_tensors(&m))) {
        wn_gguf_close(g);
        return st;
    }
    const wn_tensor *embd = get_tensor(&m, -1, "token_embd.weight"), *head = get_tensor(&m, -1, "output.weight");
    double *x = doubles((int64_t)n_tokens * m.dim), *h = doubles((int64_t)n_tokens * m.dim);
    for (int t = 0; t < n_tokens; t++) row(embd, tokens[t], x + (int64_t)t * m.dim);
    for (int l = 0; l < m.n_layers; l++) {
        attention_block(&m, l, x, h, n_tokens);
        ffn_block(&m, l, x, h, n_tokens);
    }
    rms_norm(h, x, n_tokens, m.dim, get_tensor(&m, -1, "output_norm.weight"), m.eps);
    *logits = linear(h, n_tokens, head ? head : embd, NULL);
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
