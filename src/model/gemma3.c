/* model/gemma3.c - Gemma 3: five layers with a window, then one without; QK-norm instead of
 * soft caps.
 *
 * Gemma Team, "Gemma 3 Technical Report", 2025, section 2. As Gemma 2 in embeddings, norms and
 * gate. Layers with a window turn by base 10000, the others (each sixth) by the file's base,
 * linearly scaled where it says so. The 27B, known by its 62 layers, divides queries by
 * sqrt(n_embd / n_heads).
 */
#include "model/load.h"
#include "model/net.h"

#include <math.h>

static wn_status load(wn_loader *ld, wn_err *err)
{
    wn_model *m = ld->m;
    wn_hparams *h = &m->hp;
    double final_cap = 0, base = 10000;
    wn_status st;
    if (h->window && (st = wn_hp_windows(m, h->window, 6, err))) return st;
    if ((st = wn_hp_float(m, "rope.freq_base_swa", false, 1, 1e12, &base, err))) return st;
    if ((st = wn_hp_float(m, "final_logit_softcapping", false, 0, 1e6, &final_cap, err))) return st;
    h->rope_base_local = base;
    h->logit_softcap = (float)final_cap;
    if (h->n_layers == 62) h->attn_scale = 1.0f / sqrtf((float)h->n_embd / (float)h->n_heads);
    wn_load_ends(ld);
    for (int l = 0; l < h->n_layers && !ld->status; l++) {
        wn_layer *L = &m->layers[l];
        L->local_rope = L->window > 0;
        wn_load_attention(ld, L, l);
        wn_load_vector(ld, &L->q_norm, h->k_dim, true, "blk.%d.attn_q_norm.weight", l);
        wn_load_vector(ld, &L->k_norm, h->k_dim, true, "blk.%d.attn_k_norm.weight", l);
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
        wn_net_head_norm(p, p->q, L->q_norm, h->n_heads);   /* q, k = norm per head */
        wn_net_head_norm(p, p->k, L->k_norm, h->n_kv_heads);
        wn_net_attend(p, l);
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

const wn_arch wn_arch_gemma3 = { .name = "gemma3", .rope_neox = true, .load = load,
                                 .forward = forward };
