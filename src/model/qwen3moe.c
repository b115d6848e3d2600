/* model/qwen3moe.c - Qwen 3 with experts: Qwen 3's attention, and 8 of 128 small feed-forward
 * networks per token, whose weights are made to sum to 1.
 *
 * Yang et al., "Qwen3 Technical Report", 2025, section 2. expert_feed_forward_length is the
 * width of one expert.
 */
#include "model/load.h"
#include "model/net.h"

static wn_status load(wn_loader *ld, wn_err *err)
{
    const wn_hparams *h = &ld->m->hp;
    wn_status st = wn_hp_experts(ld->m, err);
    if (st) return st;
    wn_load_ends(ld);
    for (int l = 0; l < h->n_layers && !ld->status; l++) {
        wn_layer *L = &ld->m->layers[l];
        wn_load_attention(ld, L, l);
        wn_load_vector(ld, &L->q_norm, h->k_dim, true, "blk.%d.attn_q_norm.weight", l);
        wn_load_vector(ld, &L->k_norm, h->k_dim, true, "blk.%d.attn_k_norm.weight", l);
        wn_load_vector(ld, &L->ffn_norm, h->n_embd, true, "blk.%d.ffn_norm.weight", l);
        wn_load_experts(ld, L, l);
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

        wn_net_norm(p, p->h, p->x, L->ffn_norm);
        wn_net_experts(p, L, WN_ROUTE_NORMED, WN_GATE_SILU);
        wn_net_add(p, p->x, p->h);                          /* x += sum of w_e expert_e(norm(x)) */
    }
    wn_net_head(p);
}

const wn_arch wn_arch_qwen3moe = { .name = "qwen3moe", .rope_neox = true, .load = load,
                                   .forward = forward };
