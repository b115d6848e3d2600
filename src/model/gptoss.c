/* model/gptoss.c - gpt-oss: 4 of 32 or 128 experts per token, biases everywhere, attention
 * sinks, every other layer with a window of 128.
 *
 * OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card", 2025, section 2, and the code published
 * with it. Each head has a learned sink (attention/attend.h). Experts are gated by a clamped
 * SiLU with up + 1 (kernel/vec.h); their weights are a softmax over the chosen ones. Layers
 * 0, 2, 4 ... have the window. All turn by YaRN whose two limits are not rounded to whole
 * pairs: so in the published code, though files cannot say it. Rotary pairs are a half apart.
 */
#include "model/load.h"
#include "model/net.h"

static wn_status load(wn_loader *ld, wn_err *err)
{
    wn_model *m = ld->m;
    wn_hparams *h = &m->hp;
    wn_status st = wn_hp_experts(m, err);
    if (st || (st = wn_hp_windows(m, h->window, 2, err))) return st;
    h->yarn.exact = true;
    wn_load_ends(ld);
    for (int l = 0; l < h->n_layers && !ld->status; l++) {
        wn_layer *L = &m->layers[l];
        wn_load_attention(ld, L, l);
        wn_load_attention_biases(ld, L, true, l);
        wn_load_vector(ld, &L->sinks, h->n_heads, true, "blk.%d.attn_sinks.weight", l);
        wn_load_vector(ld, &L->ffn_norm, h->n_embd, true, "blk.%d.post_attention_norm.weight", l);
        wn_load_experts(ld, L, l);
        wn_load_vector(ld, &L->brouter, h->n_experts, true, "blk.%d.ffn_gate_inp.bias", l);
        wn_load_vectors(ld, &L->bgate, h->n_ff_expert, h->n_experts, true,
                        "blk.%d.ffn_gate_exps.bias", l);
        wn_load_vectors(ld, &L->bup, h->n_ff_expert, h->n_experts, true, "blk.%d.ffn_up_exps.bias",
                        l);
        wn_load_vectors(ld, &L->bdown, h->n_embd, h->n_experts, true, "blk.%d.ffn_down_exps.bias",
                        l);
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
        wn_net_attend(p, l);  /* with sinks; windowed in even layers */
        if (l == h->n_layers - 1) wn_net_cut_outputs(p);
        wn_net_linear(p, p->a, h->n_heads * h->v_dim, &(wn_linear){ &L->wo, p->h, L->bo }, 1);
        wn_net_add(p, p->x, p->h);

        wn_net_norm(p, p->h, p->x, L->ffn_norm);
        wn_net_experts(p, L, WN_ROUTE_CHOSEN, WN_GATE_CLAMPED);
        wn_net_add(p, p->x, p->h);                          /* x += sum of w_e expert_e(norm(x)) */
    }
    wn_net_head(p);
}

const wn_arch wn_arch_gptoss = { .name = "gpt-oss", .rope_neox = true, .load = load,
                                 .forward = forward };
