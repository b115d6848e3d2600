/* model/smollm3.c - SmolLM 3: the Llama shape, and each fourth layer without rotation.
 *
 * Bakouch et al., "SmolLM3", 2025; layers without positions after Yang et al., "Rope to Nope
 * and Back Again", 2025. Layers 3, 7, 11 ... see content alone, which carries to longer texts
 * than any base does. Rotary pairs are neighbours, as in GGUF's Llama layout.
 */
#include "model/load.h"
#include "model/net.h"

enum { NO_ROPE_EVERY = 4 };             /* files do not say; all there are have this */

static wn_status load(wn_loader *ld, wn_err *err)
{
    const wn_hparams *h = &ld->m->hp;
    (void)err;
    wn_load_ends(ld);
    for (int l = 0; l < h->n_layers && !ld->status; l++) {
        wn_layer *L = &ld->m->layers[l];
        wn_load_attention(ld, L, l);
        wn_load_attention_biases(ld, L, false, l);
        wn_load_feed_forward(ld, L, l);
        L->no_rope = (l + 1) % NO_ROPE_EVERY == 0;
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
            { &L->wq, p->q, L->bq }, { &L->wk, p->k, L->bk }, { &L->wv, p->v, L->bv } }, 3);
        wn_net_attend(p, l);  /* each fourth layer: q and k as they are */
        if (l == h->n_layers - 1) wn_net_cut_outputs(p);
        wn_net_linear(p, p->a, h->n_heads * h->v_dim, &(wn_linear){ &L->wo, p->h, L->bo }, 1);
        wn_net_add(p, p->x, p->h);
        wn_net_feed_forward(p, L);  /* x += W_down (silu(W_gate h) * W_up h), h = norm(x) */
    }
    wn_net_head(p);
}

const wn_arch wn_arch_smollm3 = { .name = "smollm3", .rope_neox = false, .load = load,
                                  .forward = forward };
