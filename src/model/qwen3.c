/* model/qwen3.c - Qwen 3: no biases, instead each head's q and k are normed before rope.
 *
 * Yang et al., "Qwen3 Technical Report", 2025, section 2 (QK-Norm after Dehghani et al.,
 * 2023). The head size is explicit (key_length) and need not be n_embd / n_heads. Rotary
 * pairs are a half apart.
 */
#include "model/load.h"
#include "model/net.h"

static wn_status load(wn_loader *ld, wn_err *err)
{
    const wn_hparams *h = &ld->m->hp;
    (void)err;
    wn_load_ends(ld);
    for (int l = 0; l < h->n_layers && !ld->status; l++) {
        wn_layer *L = &ld->m->layers[l];
        wn_load_attention(ld, L, l);
        wn_load_vector(ld, &L->q_norm, h->k_dim, true, "blk.%d.attn_q_norm.weight", l);
        wn_load_vector(ld, &L->k_norm, h->k_dim, true, "blk.%d.attn_k_norm.weight", l);
        wn_load_feed_forward(ld, L, l);
    }
    return ld->status;
}

static void forward(const wn_model *m, wn_pass *p)
{
    const wn_hparams *h = &m->hp;
    wn_net_embed(p);                                        /* x = E[token] */
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
        wn_net_add(p, p->x, p->h);
        wn_net_feed_forward(p, L);  /* x += W_down (silu(W_gate h) * W_up h), h = norm(x) */
    }
    wn_net_head(p);
}

const wn_arch wn_arch_qwen3 = { .name = "qwen3", .rope_neox = true, .load = load,
                                .forward = forward };
