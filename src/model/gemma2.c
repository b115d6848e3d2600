/* model/gemma2.c - Gemma 2: norms around each half of a layer, soft caps, every other layer
 * with a sliding window.
 *
 * Gemma Team, "Gemma 2", 2024, section 2. Embeddings are scaled by sqrt(n_embd); scores pass
 * cap tanh(s / cap), and so do the logits; what attention and feed-forward give is normed
 * before it is added; the gate is GELU. GGUF stores norm weights as they are multiplied
 * (Gemma's own files hold them less 1). Layers 0, 2, 4 ... have the window. Files do not say
 * that the 27B divides queries by sqrt(n_embd / n_heads): it is known by its 46 layers.
 */
#include "model/load.h"
#include "model/net.h"

#include <math.h>

static wn_status load(wn_loader *ld, wn_err *err)
{
    wn_model *m = ld->m;
    wn_hparams *h = &m->hp;
    double cap = 50, final_cap = 30;
    wn_status st;
    if (!h->window && h->n_ctx_train > 4096) h->window = 4096;
    if ((st = wn_hp_windows(m, h->window, 2, err))) return st;
    if ((st = wn_hp_float(m, "attn_logit_softcapping", false, 0, 1e6, &cap, err))) return st;
    if ((st = wn_hp_float(m, "final_logit_softcapping", false, 0, 1e6, &final_cap, err))) return st;
    h->attn_softcap = (float)cap;
    h->logit_softcap = (float)final_cap;
    if (h->n_layers == 46) h->attn_scale = 1.0f / sqrtf((float)h->n_embd / (float)h->n_heads);
    wn_load_ends(ld);
    for (int l = 0; l < h->n_layers && !ld->status; l++) {
        wn_layer *L = &m->layers[l];
        wn_load_attention(ld, L, l);
        wn_load_vector(ld, &L->attn_post_norm, h->n_embd, true, "blk.%d.post_attention_norm.weight",
                       l);
        wn_load_feed_forward(ld, L, l);
        wn_load_vector(ld, &L->ffn_post_norm, h->n_embd, true, "blk.%d.post_ffw_norm.weight", l);
    }
    return ld->status;
}

static void forward(const wn_model *m, wn_pass *p)
{
    const wn_hparams *h = &m->hp;
    wn_net_embed(p);
    wn_net_scale(p, p->x, sqrtf((float)h->n_embd));         /* x = sqrt(n_embd) E[token] */
    for (int l = 0; l < h->n_layers; l++) {
        const wn_layer *L = &m->layers[l];

        wn_net_norm(p, p->h, p->x, L->attn_norm);
        wn_net_linear(p, p->h, h->n_embd, (wn_linear[]){
            { &L->wq, p->q, NULL }, { &L->wk, p->k, NULL }, { &L->wv, p->v, NULL } }, 3);
        wn_net_attend(p, l);  /* scores soft-capped, windowed in even layers */
        if (l == h->n_layers - 1) wn_net_cut_outputs(p);
        wn_net_linear(p, p->a, h->n_heads * h->v_dim, &(wn_linear){ &L->wo, p->h, NULL }, 1);
        wn_net_norm(p, p->h, p->h, L->attn_post_norm);
        wn_net_add(p, p->x, p->h);                          /* x += norm(W_o a) */

        wn_net_norm(p, p->h, p->x, L->ffn_norm);
        wn_net_gated(p, L, WN_GATE_GELU);
        wn_net_norm(p, p->h, p->h, L->ffn_post_norm);
        wn_net_add(p, p->x, p->h);  /* x += norm(W_down (gelu(W_gate h) * W_up h)) */
    }
    wn_net_head(p);
    wn_net_cap_logits(p, h->logit_softcap);
}

const wn_arch wn_arch_gemma2 = { .name = "gemma2", .rope_neox = true, .load = load,
                                 .forward = forward };
