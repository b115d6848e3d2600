/* model/hparams.c - the numbers of a model file get a meaning and bounds.
 *
 * Keys are "<architecture>.<field>". What all architectures have in common is read here;
 * what only some have, their load functions ask for by the same functions. Rates of
 * rotation are made from it: attention/rope.h says what the scalings are.
 *
 * YaRN's attention factor is 1 + 0.1 ln(factor) (Peng et al., 2023, section 3.4). Files of
 * DeepSeek's way give a multiplier, by which q k was scaled apart; then it is the ratio of
 * both. rope.scaling.attn_factor multiplies it, and is all there is for longrope.
 */
#include "model/load.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void key_of(char key[128], const wn_model *m, const char *field)
{
    snprintf(key, 128, "%s.%s", m->arch->name, field);
}

wn_status wn_hp_int(const wn_model *m, const char *field, bool need, int64_t min, int64_t max,
                    int *out, wn_err *err)
{
    char key[128];
    int64_t v = *out;
    key_of(key, m, field);
    wn_status st = wn_gguf_int(m->file, key, need, min, max, &v, err);
    if (!st) *out = (int)v;
    return st;
}

wn_status wn_hp_float(const wn_model *m, const char *field, bool need, double min, double max,
                      double *out, wn_err *err)
{
    char key[128];
    key_of(key, m, field);
    wn_status st = wn_gguf_float(m->file, key, need, out, err);
    if (!st && !(*out >= min && *out <= max))           /* NaN fails too */
        return wn_fail(err, WN_EFORMAT, "%s is %g, expected %g to %g", key, *out, min, max);
    return st;
}

wn_status wn_hp_experts(wn_model *m, wn_err *err)
{
    wn_hparams *h = &m->hp;
    double scale = 1;
    if (!h->n_experts)
        return wn_fail(err, WN_EFORMAT, "%s.expert_count is missing or 0", m->arch->name);
    h->n_ff_expert = h->n_ff;
    wn_status st = wn_hp_int(m, "expert_feed_forward_length", !h->n_ff, 1, 1 << 18, &h->n_ff_expert,
                             err);
    if (st || (st = wn_hp_float(m, "expert_weights_scale", false, 0, 1e3, &scale, err))) return st;
    h->expert_scale = scale > 0 ? (float)scale : 1;
    return WN_OK;
}

/* ---- windows ------------------------------------------------------------------------ */

/* Which layers have one: a list of bools, or a number n: all but each n-th. */
static wn_status window_list(wn_model *m, const wn_gguf_kv *kv, const char *key, int window,
                             wn_err *err)
{
    if (kv->item > WN_KV_I32 && kv->item != WN_KV_BOOL && kv->item != WN_KV_U64 &&
        kv->item != WN_KV_I64)
        return wn_fail(err, WN_EFORMAT, "%s is an array of %s, expected bools", key,
                       wn_kv_type_name(kv->item));
    if (kv->n != (uint64_t)m->hp.n_layers)
        return wn_fail(err, WN_EFORMAT, "%s has %llu elements for %d layers", key,
                       (unsigned long long)kv->n, m->hp.n_layers);
    for (int l = 0; l < m->hp.n_layers; l++)
        m->layers[l].window = wn_gguf_item_int(kv, (uint64_t)l) ? window : 0;
    return WN_OK;
}

wn_status wn_hp_windows(wn_model *m, int window, int every, wn_err *err)
{
    char key[128];
    key_of(key, m, "attention.sliding_window_pattern");
    const wn_gguf_kv *kv = wn_gguf_find(m->file, key);
    if (kv && kv->type == WN_KV_ARRAY) return window_list(m, kv, key, window, err);
    wn_status st = wn_hp_int(m, "attention.sliding_window_pattern", false, 0, 1 << 20, &every, err);
    if (st) return st;
    for (int l = 0; l < m->hp.n_layers; l++)
        m->layers[l].window = every == 0 || l % every < every - 1 ? window : 0;
    return WN_OK;
}

/* ---- rotation ----------------------------------------------------------------------- */

static double yarn_length(double factor, double multiplier)
{
    return factor > 1 ? 0.1 * multiplier * log(factor) + 1 : 1;
}

static wn_status read_yarn(wn_model *m, double factor, wn_err *err)
{
    wn_rope_yarn *y = &m->hp.yarn;
    double multiplier = 0;
    wn_status st;
    *y = (wn_rope_yarn){ .factor = factor, .n_trained = m->hp.n_ctx_rope, .fast = 32, .slow = 1,
                         .share = 1 };
    if ((st = wn_hp_float(m, "rope.scaling.yarn_beta_fast", false, 1e-3, 1e6, &y->fast, err)))
        return st;
    if ((st = wn_hp_float(m, "rope.scaling.yarn_beta_slow", false, 1e-3, 1e6, &y->slow, err)))
        return st;
    if ((st = wn_hp_float(m, "rope.scaling.yarn_ext_factor", false, -1, 1, &y->share, err)))
        return st;
    if ((st = wn_hp_float(m, "rope.scaling.yarn_log_multiplier", false, 0, 100, &multiplier, err)))
        return st;
    if (y->share < 0) y->share = 1;     /* how files say: not set */
    if (y->share > 0)
        m->hp.rope_length *= yarn_length(factor, 1) /
                             (multiplier > 0 ? yarn_length(factor, multiplier) : 1);
    return WN_OK;
}

static wn_status read_rope_scaling(wn_model *m, wn_err *err)
{
    wn_hparams *h = &m->hp;
    char key[128];
    wn_str type = { NULL, 0 };
    double factor = 1;
    h->n_ctx_rope = h->n_ctx_train;
    h->rope_linear = h->rope_length = 1;
    wn_status st = wn_hp_int(m, "rope.scaling.original_context_length", false, 1, 1 << 26,
                             &h->n_ctx_rope, err);
    if (st ||
        (st = wn_hp_float(m, "rope.scaling.attn_factor", false, 1e-3, 1e3, &h->rope_length, err)))
        return st;
    key_of(key, m, "rope.scaling.type");
    if ((st = wn_gguf_string(m->file, key, false, &type, err))) return st;
    if (type.p && (wn_str_is(type, "none") || wn_str_is(type, "longrope"))) return WN_OK;
    /* older files */
    if ((st = wn_hp_float(m, "rope.scale_linear", false, 1e-3, 1e6, &factor, err))) return st;
    if ((st = wn_hp_float(m, "rope.scaling.factor", false, 1e-3, 1e6, &factor, err))) return st;
    if (type.p && wn_str_is(type, "yarn")) return read_yarn(m, factor, err);
    if (type.p && !wn_str_is(type, "linear"))
        return wn_fail(err, WN_EUNSUPPORTED,
                       "%s is \"%.*s\": this version knows none, linear, yarn and longrope", key,
                       (int)WN_MIN(type.n, (size_t)64), type.p);
    h->rope_linear = factor;
    return WN_OK;
}

wn_status wn_read_hparams(wn_model *m, wn_err *err)
{
    wn_hparams *h = &m->hp;
    wn_status st;
    double eps = 1e-5, base = 10000, scale = 0;
    if ((st = wn_hp_int(m, "block_count", true, 1, 1024, &h->n_layers, err))) return st;
    if ((st = wn_hp_int(m, "embedding_length", true, 1, 1 << 17, &h->n_embd, err))) return st;
    if ((st = wn_hp_int(m, "attention.head_count", true, 1, 1 << 12, &h->n_heads, err))) return st;
    h->n_kv_heads = h->n_heads;
    if ((st = wn_hp_int(m, "attention.head_count_kv", false, 1, 1 << 12, &h->n_kv_heads, err)))
        return st;
    if (h->n_heads % h->n_kv_heads)
        return wn_fail(err, WN_EFORMAT,
                       "%s.attention.head_count is %d, not a multiple of head_count_kv %d",
                       m->arch->name, h->n_heads, h->n_kv_heads);
    h->k_dim = h->n_embd / h->n_heads;     /* unless the file says otherwise */
    if ((st = wn_hp_int(m, "attention.key_length", false, 1, 512, &h->k_dim, err))) return st;
    h->v_dim = h->k_dim;
    if ((st = wn_hp_int(m, "attention.value_length", false, 1, 512, &h->v_dim, err))) return st;
    if (h->k_dim > 512 || h->k_dim < 2 || h->v_dim < 1 || h->v_dim > 512)
        return wn_fail(err, WN_EUNSUPPORTED,
                       "%s: heads of %d and %d values, supported are 2 to 512", m->arch->name,
                       h->k_dim, h->v_dim);
    if ((st = wn_hp_int(m, "expert_count", false, 0, 1 << 12, &h->n_experts, err))) return st;
    if (h->n_experts &&
        (st = wn_hp_int(m, "expert_used_count", true, 1, WN_MIN(h->n_experts, WN_EXPERTS_USED_MAX),
                        &h->n_used, err)))
        return st;
    if ((st = wn_hp_int(m, "feed_forward_length", !h->n_experts, 1, 1 << 18, &h->n_ff, err)))
        return st;
    if ((st = wn_hp_int(m, "context_length", true, 1, 1 << 26, &h->n_ctx_train, err))) return st;
    if ((st = wn_hp_float(m, "attention.layer_norm_rms_epsilon", true, 0, 1, &eps, err))) return st;
    h->norm_eps = (float)eps;
    if ((st = wn_hp_float(m, "attention.scale", false, 0, 1e3, &scale, err))) return st;
    h->attn_scale = scale > 0 ? (float)scale : 1.0f / sqrtf((float)h->k_dim);
    h->rope_dims = h->k_dim & ~1;
    if ((st = wn_hp_int(m, "rope.dimension_count", false, 2, 2 * WN_ROPE_PAIRS_MAX, &h->rope_dims,
                        err)))
        return st;
    if (h->rope_dims > h->k_dim || h->rope_dims % 2)
        return wn_fail(
            err, WN_EFORMAT,
            "%s.rope.dimension_count is %d, expected an even number up to the head size %d",
            m->arch->name, h->rope_dims, h->k_dim);
    if ((st = wn_hp_float(m, "rope.freq_base", false, 1, 1e12, &base, err))) return st;
    h->rope_base = base;
    if ((st = wn_hp_int(m, "attention.sliding_window", false, 0, 1 << 26, &h->window, err)))
        return st;
    if (h->window >= h->n_ctx_train) h->window = 0;     /* never reached */
    return read_rope_scaling(m, err);
}

/* The divisors of a tensor of rotary pairs; false and no failure where the file has none. */
static bool read_factors(wn_model *m, wn_loader *ld, const char *name, float *factors)
{
    const float *f = NULL;
    wn_load_vector(ld, &f, m->hp.rope_dims / 2, false, name, 0);
    for (int i = 0; f && i < m->hp.rope_dims / 2; i++) {
        factors[i] = f[i];
        if (!(f[i] > 0)) {
            ld->status = wn_fail(ld->err, WN_EFORMAT,
                                 "tensor %s: value %d is %g, expected a positive number", name, i,
                                 (double)f[i]);
            return false;
        }
    }
    return f != NULL;
}

static void make_rope(wn_model *m, wn_rope *r, const float *factors)
{
    const wn_hparams *h = &m->hp;
    wn_rope_init(r, h->rope_dims, m->arch->rope_neox, h->rope_base, h->rope_linear, factors);
    if (h->yarn.factor > 0) wn_rope_stretch(r, h->rope_base, &h->yarn);
    r->length = h->rope_length;
}

wn_status wn_make_ropes(wn_loader *ld)
{
    wn_model *m = ld->m;
    float factors[WN_ROPE_PAIRS_MAX];
    bool any = read_factors(m, ld, "rope_freqs.weight", factors) ||
               (!ld->status && read_factors(m, ld, "rope_factors_short.weight", factors));
    make_rope(m, &m->ropes[WN_ROPE_MAIN], any ? factors : NULL);
    if (!ld->status && read_factors(m, ld, "rope_factors_long.weight", factors)) {
        make_rope(m, &m->ropes[WN_ROPE_LONG], factors);
        m->n_ctx_short = m->hp.n_ctx_rope;
    }
    if (m->hp.rope_base_local > 0)
        wn_rope_init(&m->ropes[WN_ROPE_LOCAL], m->hp.rope_dims, m->arch->rope_neox,
                     m->hp.rope_base_local, 1, NULL);
    return ld->status;
}

const wn_rope *wn_model_rope(const wn_model *m, int layer, int n_ctx)
{
    const wn_layer *L = &m->layers[layer];
    if (L->no_rope) return NULL;
    if (L->local_rope) return &m->ropes[WN_ROPE_LOCAL];
    return &m->ropes[m->n_ctx_short && n_ctx > m->n_ctx_short ? WN_ROPE_LONG : WN_ROPE_MAIN];
}
