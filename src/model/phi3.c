/* model/phi3.c - Phi 3, 3.5 and 4: the Llama shape with q, k, v in one tensor and gate, up in
 * another, and longrope.
 *
 * Abdin et al., "Phi-3 Technical Report", 2024, section 2; Ding et al., "LongRoPE", 2024. Long
 * contexts turn by rates of their own and lengthen q and k (attention/rope.h); rope may cover
 * a part of each head only. Rotary pairs are a half apart.
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
        wn_load_vector(ld, &L->ffn_norm, h->n_embd, true, "blk.%d.ffn_norm.weight", l);
        wn_load_rows(ld, &L->gate, 0, h->n_ff, 2 * h->n_ff, h->n_embd, "blk.%d.ffn_up.weight", l);
        wn_load_rows(ld, &L->up, h->n_ff, h->n_ff, 2 * h->n_ff, h->n_embd, "blk.%d.ffn_up.weight",
                     l);
        wn_load_matrix(ld, &L->down, h->n_embd, h->n_ff, "blk.%d.ffn_down.weight", l);
        L->window = h->window;
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
        wn_net_attend(p, l);
        if (l == h->n_layers - 1) wn_net_cut_outputs(p);
        wn_net_linear(p, p->a, h->n_heads * h->v_dim, &(wn_linear){ &L->wo, p->h, NULL }, 1);
        wn_net_add(p, p->x, p->h);
        wn_net_feed_forward(p, L);  /* x += W_down (silu(W_gate h) * W_up h), h = norm(x) */
    }
    wn_net_head(p);
}

const wn_arch wn_arch_phi3 = { .name = "phi3", .rope_neox = true, .load = load,
                               .forward = forward };
