/* model/llama.c - Llama, and the many models of its shape (Mistral, TinyLlama, SmolLM).
 *
 * Touvron et al., "LLaMA", 2023, section 2.2: pre-normalised residual layers of grouped
 * attention with rotary positions and a gated SiLU feed-forward. Rotary pairs are
 * neighbours (2j, 2j + 1) in GGUF's Llama layout. Llama 3's frequency divisors come as the
 * tensor rope_freqs. Some derived models carry biases; they are optional. Mixtral (Jiang et
 * al., "Mixtral of Experts", 2024) has experts instead of one feed-forward, weighted by a
 * softmax over the chosen ones.
 */
#include "model/load.h"
#include "model/net.h"

static wn_status load(wn_loader *ld, wn_err *err)
{
    const wn_hparams *h = &ld->m->hp;
    wn_status st = h->n_experts ? wn_hp_experts(ld->m, err) : WN_OK;
    if (st) return st;
    wn_load_ends(ld);
    for (int l = 0; l < h->n_layers && !ld->status; l++) {
        wn_layer *L = &ld->m->layers[l];
        wn_load_attention(ld, L, l);
        wn_load_attention_biases(ld, L, false, l);
        if (h->n_experts) {
            wn_load_vector(ld, &L->ffn_norm, h->n_embd, true, "blk.%d.ffn_norm.weight", l);
            wn_load_experts(ld, L, l);
        } else {
            wn_load_feed_forward(ld, L, l);
        }
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

        wn_net_norm(p, p->h, p->x, L->attn_norm);           /* h = norm(x) */
        wn_net_linear(p, p->h, h->n_embd, (wn_linear[]){
            { &L->wq, p->q, L->bq }, { &L->wk, p->k, L->bk }, { &L->wv, p->v, L->bv } }, 3);
        wn_net_attend(p, l);                                /* a = attention(q, k, v) */
        if (l == h->n_layers - 1) wn_net_cut_outputs(p);
        wn_net_linear(p, p->a, h->n_heads * h->v_dim, &(wn_linear){ &L->wo, p->h, L->bo }, 1);
        wn_net_add(p, p->x, p->h);                          /* x += W_o a */
        wn_net_norm(p, p->h, p->x, L->ffn_norm);            /* h = norm(x) */
        if (h->n_experts) wn_net_experts(p, L, WN_ROUTE_CHOSEN, WN_GATE_SILU);
        else wn_net_gated(p, L, WN_GATE_SILU);  /* h = W_down (silu(W_gate h) * W_up h) */
        wn_net_add(p, p->x, p->h);
    }
    wn_net_head(p);                                         /* logits = W_head norm(x) */
}

const wn_arch wn_arch_llama = { .name = "llama", .rope_neox = false, .load = load,
                                .forward = forward };
