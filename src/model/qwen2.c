/* model/qwen2.c - Qwen 2 and 2.5: the Llama shape with biases on q, k and v.
 *
 * Yang et al., "Qwen2 Technical Report", 2024, section 2.2.1. Rotary pairs are a half
 * apart (j, j + d/2).
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
        wn_load_attention_biases(ld, L, true, l);
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
        wn_net_linear(p, p->h, h->n_embd, (wn_linear[]){    /* q, k, v = W h + b */
            { &L->wq, p->q, L->bq }, { &L->wk, p->k, L->bk }, { &L->wv, p->v, L->bv } }, 3);
        wn_net_attend(p, l);
        if (l == h->n_layers - 1) wn_net_cut_outputs(p);
        wn_net_linear(p, p->a, h->n_heads * h->v_dim, &(wn_linear){ &L->wo, p->h, L->bo }, 1);
        wn_net_add(p, p->x, p->h);
        wn_net_feed_forward(p, L);  /* x += W_down (silu(W_gate h) * W_up h), h = norm(x) */
    }
    wn_net_head(p);
}

const wn_arch wn_arch_qwen2 = { .name = "qwen2", .rope_neox = true, .load = load,
                                .forward = forward };
