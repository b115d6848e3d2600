/* model/llama.c - Llama, and the many models of its shape (Mistral, TinyLlama, SmolLM).
 *
 * Touvron et al., "LLaMA", 2023, section 2.2: pre-normalised residual layers of grouped
 * attention with rotary positions and a gated SiLU feed-forward. Rotary pairs are
 * neighbours (2j, 2j + 1) in GGUF's Llama layout. Llama 3's frequency divisors come as the
 * tensor rope_freqs. Some derived models carry attention biases; they are optional.
 */
#include "model/load.h"
#include "model/net.h"

static wn_status load(wn_loader *ld, wn_err *err)
{
    const wn_hparams *h = &ld->m->hp;
    int64_t n_experts = 0;
    wn_status st = wn_gguf_int(ld->m->file, "llama.expert_count", false, 0, 1 << 16, &n_experts, err);
    if (st) return st;
    if (n_experts > 0)
        return wn_fail(err, WN_EUNSUPPORTED, "llama.expert_count is %lld: mixtures of experts are not supported yet",
                       (long long)n_experts);
    wn_load_ends(ld);
    for (int l = 0; l < h->n_layers && !ld->status; l++) {
        wn_layer *L = &ld->m->layers[l];
        wn_load_attention(ld, L, l);
        wn_load_attention_biases(ld, L, false, l);
        wn_load_feed_forward(ld, L, l);
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
        wn_net_feed_forward(p, L);                          /* x += W_down (silu(W_gate h) * W_up h), h = norm(x) */
    }
    wn_net_head(p);                                         /* logits = W_head norm(x) */
}

const wn_arch wn_arch_llama = { .name = "llama", .rope_neox = false, .load = load, .forward = forward };
