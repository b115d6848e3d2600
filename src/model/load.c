/* model/load.c - tensors by name and shape, and their weights repacked.
 *
 * An architecture's load function calls what is here and reads as a list of its tensors.
 * Some files keep several matrices in one tensor: q, k and v one below the other, gate and
 * up likewise, experts behind each other. Here each is a matrix of its own, cut out as rows.
 * Quantised ones are then repacked into one block (rows interleaved, kernel/matmul_pack.c),
 * all threads packing, and the pages they came from leave the process; the rest stays mapped.
 *
 * Every tensor of the file must have been asked for: one that was not belongs to a model
 * that is more than the architecture's name says, and would be wrong without it.
 */
#include "model/load.h"
#include "base/alloc.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- tensors --------------------------------------------------------------------- */

void wn_load_fail(wn_loader *ld, wn_status st, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    if (ld->status) return;             /* the first sentence stays */
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    ld->status = wn_fail(ld->err, st, "%s", text);
}

static void layer_name(char out[96], const char *name, int layer)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(out, 96, name, layer);     /* our own literals, with at most one %d */
#pragma GCC diagnostic pop
}

static const wn_tensor *find(const wn_loader *ld, char full[96], const char *name, int layer)
{
    layer_name(full, name, layer);
    return wn_gguf_tensor(ld->m->file, full);
}

bool wn_load_has(const wn_loader *ld, const char *name, int layer)
{
    char full[96];
    return find(ld, full, name, layer) != NULL;
}

/* The tensor, marked as asked for; its absence is a failure. */
static const wn_tensor *need_tensor(wn_loader *ld, char full[96], const char *name, int layer)
{
    if (ld->status) return NULL;
    const wn_tensor *t = find(ld, full, name, layer);
    if (t) ld->asked[t - wn_gguf_tensor_at(ld->m->file, 0)] = true;
    else wn_load_fail(ld, WN_EFORMAT, "tensor %s is missing", full);
    return t;
}

static wn_pack_item *new_item(wn_loader *ld)
{
    if (ld->n_items == ld->cap_items) {
        int cap = ld->cap_items ? 2 * ld->cap_items : 64;
        wn_pack_item *p = wn_realloc(ld->items, sizeof *p * (size_t)cap);
        if (!p) {
            wn_load_fail(ld, WN_ENOMEM, "model: out of memory");
            return NULL;
        }
        ld->items = p;
        ld->cap_items = cap;
    }
    return &ld->items[ld->n_items++];
}

/* Rows [first, first + n_rows) of a tensor, all its dimensions but the first taken as rows. */
static void cut(wn_loader *ld, wn_matrix *out, const wn_tensor *t, int64_t first, int n_rows)
{
    int n_cols = (int)t->ne[0];
    size_t row = wn_type_row_bytes(t->type, n_cols);
    if (!wn_matmul_supports(t->type, n_cols)) {
        wn_load_fail(ld, WN_EUNSUPPORTED, "tensor %s: no kernel for type %s with rows of %d",
                     t->name, wn_type_find((uint32_t)t->type)->name, n_cols);
        return;
    }
    *out = (wn_matrix){ .type = t->type, .n_rows = n_rows, .n_cols = n_cols,
                        .data = t->data + (size_t)first * row };
    size_t packed = ld->no_repack ? 0 : wn_matrix_packed_bytes(t->type, n_rows, n_cols);
    if (!packed) {
        ld->m->weight_bytes += row * (size_t)n_rows;
        return;
    }
    wn_pack_item *it = new_item(ld);
    if (!it) return;
    *it = (wn_pack_item){ .m = out, .t = t, .first = first, .offset = ld->packed_bytes };
    ld->packed_bytes += (packed + 4095) / 4096 * 4096;
    ld->m->weight_bytes += packed;
}

void wn_load_rows(wn_loader *ld, wn_matrix *out, int first, int n_rows, int all_rows, int n_cols,
                  const char *name, int layer)
{
    char full[96];
    const wn_tensor *t = need_tensor(ld, full, name, layer);
    if (!t) return;
    if (t->ne[0] != n_cols || t->ne[1] != all_rows || t->ne[2] != 1 || t->ne[3] != 1)
        wn_load_fail(ld, WN_EFORMAT, "tensor %s is %lld x %lld, expected %d x %d", full,
                     (long long)t->ne[0], (long long)t->ne[1], n_cols, all_rows);
    else cut(ld, out, t, first, n_rows);
}

void wn_load_matrix(wn_loader *ld, wn_matrix *out, int n_rows, int n_cols, const char *name,
                    int layer)
{
    wn_load_rows(ld, out, 0, n_rows, n_rows, n_cols, name, layer);
}

/* One matrix per expert, behind each other. */
static void load_expert_matrices(wn_loader *ld, wn_matrix **out, int n_rows, int n_cols,
                                 const char *name, int layer)
{
    char full[96];
    int n = ld->m->hp.n_experts;
    const wn_tensor *t = need_tensor(ld, full, name, layer);
    if (!t) return;
    if (t->ne[0] != n_cols || t->ne[1] != n_rows || t->ne[2] != n || t->ne[3] != 1) {
        wn_load_fail(ld, WN_EFORMAT, "tensor %s is %lld x %lld x %lld, expected %d x %d x %d", full,
                     (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2], n_cols, n_rows,
                     n);
        return;
    }
    *out = ld->m->expert_matrices + ld->n_expert_matrices;
    WN_ASSERT(ld->n_expert_matrices + n <= 3 * n * ld->m->hp.n_layers);
    ld->n_expert_matrices += n;
    for (int e = 0; e < n && !ld->status; e++) cut(ld, *out + e, t, (int64_t)e * n_rows, n_rows);
}

void wn_load_vectors(wn_loader *ld, const float **out, int n, int count, bool need,
                     const char *name, int layer)
{
    char full[96];
    if (ld->status) return;
    *out = NULL;
    if (!need && !find(ld, full, name, layer)) return;
    const wn_tensor *t = need_tensor(ld, full, name, layer);
    if (!t) return;
    const wn_type_info *ti = wn_type_find((uint32_t)t->type);
    if (t->ne[0] != n || t->ne[1] != count || t->ne[2] != 1 || t->ne[3] != 1) {
        wn_load_fail(ld, WN_EFORMAT, "tensor %s has %lld x %lld values, expected %d x %d", full,
                     (long long)t->ne[0], (long long)t->ne[1], n, count);
        return;
    }
    if (!ti->decode) {
        wn_load_fail(ld, WN_EUNSUPPORTED, "tensor %s: type %s cannot be read yet", full, ti->name);
        return;
    }
    int64_t all = (int64_t)n * count;
    size_t room = ((size_t)all + 15) / 16 * 16;
    WN_ASSERT(ld->n_vectors + room <= ld->cap_vectors);
    float *v = ld->vectors + ld->n_vectors;
    for (int r = 0; r < count; r++)
        ti->decode(v + (size_t)r * (size_t)n, t->data + (size_t)r * wn_type_row_bytes(t->type, n),
                   n);
    for (int64_t i = 0; i < all; i++)
        if (!isfinite(v[i])) {
            wn_load_fail(ld, WN_EFORMAT, "tensor %s: value %lld is not a finite number", full,
                         (long long)i);
            return;
        }
    ld->n_vectors += room;
    *out = v;
}

void wn_load_vector(wn_loader *ld, const float **out, int n, bool need, const char *name, int layer)
{
    wn_load_vectors(ld, out, n, 1, need, name, layer);
}

/* ---- what layers have in common ------------------------------------------------------ */

void wn_load_ends(wn_loader *ld)
{
    wn_model *m = ld->m;
    const wn_hparams *h = &m->hp;
    bool tied = !wn_load_has(ld, "output.weight", 0);
    wn_load_vector(ld, &m->out_norm, h->n_embd, true, "output_norm.weight", 0);
    if (tied) {
        wn_load_matrix(ld, &m->embed, h->n_vocab, h->n_embd, "token_embd.weight", 0);
        return;                         /* head copies embed once it is packed */
    }
    bool no_repack = ld->no_repack;     /* only rows are looked up: packing would gain nothing */
    ld->no_repack = true;
    wn_load_matrix(ld, &m->embed, h->n_vocab, h->n_embd, "token_embd.weight", 0);
    ld->no_repack = no_repack;
    wn_load_matrix(ld, &m->head, h->n_vocab, h->n_embd, "output.weight", 0);
}

void wn_load_attention(wn_loader *ld, wn_layer *L, int layer)
{
    const wn_hparams *h = &ld->m->hp;
    int q = h->n_heads * h->k_dim, k = h->n_kv_heads * h->k_dim, v = h->n_kv_heads * h->v_dim;
    wn_load_vector(ld, &L->attn_norm, h->n_embd, true, "blk.%d.attn_norm.weight", layer);
    if (wn_load_has(ld, "blk.%d.attn_qkv.weight", layer)) {
        wn_load_rows(ld, &L->wq, 0, q, q + k + v, h->n_embd, "blk.%d.attn_qkv.weight", layer);
        wn_load_rows(ld, &L->wk, q, k, q + k + v, h->n_embd, "blk.%d.attn_qkv.weight", layer);
        wn_load_rows(ld, &L->wv, q + k, v, q + k + v, h->n_embd, "blk.%d.attn_qkv.weight", layer);
    } else {
        wn_load_matrix(ld, &L->wq, q, h->n_embd, "blk.%d.attn_q.weight", layer);
        wn_load_matrix(ld, &L->wk, k, h->n_embd, "blk.%d.attn_k.weight", layer);
        wn_load_matrix(ld, &L->wv, v, h->n_embd, "blk.%d.attn_v.weight", layer);
    }
    wn_load_matrix(ld, &L->wo, h->n_embd, h->n_heads * h->v_dim, "blk.%d.attn_output.weight",
                   layer);
}

void wn_load_attention_biases(wn_loader *ld, wn_layer *L, bool need, int layer)
{
    const wn_hparams *h = &ld->m->hp;
    int q = h->n_heads * h->k_dim, k = h->n_kv_heads * h->k_dim, v = h->n_kv_heads * h->v_dim;
    wn_load_vector(ld, &L->bo, h->n_embd, false, "blk.%d.attn_output.bias", layer);
    if (wn_load_has(ld, "blk.%d.attn_qkv.bias", layer)) {
        wn_load_vector(ld, &L->bq, q + k + v, true, "blk.%d.attn_qkv.bias", layer);
        if (ld->status) return;
        L->bk = L->bq + q;
        L->bv = L->bk + k;
        return;
    }
    wn_load_vector(ld, &L->bq, q, need, "blk.%d.attn_q.bias", layer);
    wn_load_vector(ld, &L->bk, k, need, "blk.%d.attn_k.bias", layer);
    wn_load_vector(ld, &L->bv, v, need, "blk.%d.attn_v.bias", layer);
}

void wn_load_feed_forward(wn_loader *ld, wn_layer *L, int layer)
{
    const wn_hparams *h = &ld->m->hp;
    wn_load_vector(ld, &L->ffn_norm, h->n_embd, true, "blk.%d.ffn_norm.weight", layer);
    wn_load_matrix(ld, &L->gate, h->n_ff, h->n_embd, "blk.%d.ffn_gate.weight", layer);
    wn_load_matrix(ld, &L->up, h->n_ff, h->n_embd, "blk.%d.ffn_up.weight", layer);
    wn_load_matrix(ld, &L->down, h->n_embd, h->n_ff, "blk.%d.ffn_down.weight", layer);
    wn_load_vector(ld, &L->bgate, h->n_ff, false, "blk.%d.ffn_gate.bias", layer);
    wn_load_vector(ld, &L->bup, h->n_ff, false, "blk.%d.ffn_up.bias", layer);
    wn_load_vector(ld, &L->bdown, h->n_embd, false, "blk.%d.ffn_down.bias", layer);
}

void wn_load_experts(wn_loader *ld, wn_layer *L, int layer)
{
    const wn_hparams *h = &ld->m->hp;
    if (wn_load_has(ld, "blk.%d.ffn_gate.0.weight", layer)) {
        wn_load_fail(ld, WN_EUNSUPPORTED,
                     "tensor blk.%d.ffn_gate.0.weight: experts in tensors of their own are a "
                     "layout of 2023; convert the model again",
                     layer);
        return;
    }
    wn_load_matrix(ld, &L->router, h->n_experts, h->n_embd, "blk.%d.ffn_gate_inp.weight", layer);
    load_expert_matrices(ld, &L->gates, h->n_ff_expert, h->n_embd, "blk.%d.ffn_gate_exps.weight",
                         layer);
    load_expert_matrices(ld, &L->ups, h->n_ff_expert, h->n_embd, "blk.%d.ffn_up_exps.weight",
                         layer);
    load_expert_matrices(ld, &L->downs, h->n_embd, h->n_ff_expert, "blk.%d.ffn_down_exps.weight",
                         layer);
}

void wn_load_check_all(wn_loader *ld)
{
    for (size_t i = 0; i < wn_gguf_n_tensors(ld->m->file); i++)
        if (!ld->asked[i])
            wn_load_fail(ld, WN_EUNSUPPORTED,
                         "tensor %s: this version's %s has none of this name, so the model is a "
                         "variant it cannot run",
                         wn_gguf_tensor_at(ld->m->file, i)->name, ld->m->arch->name);
}

/* ---- packing --------------------------------------------------------------------- */

enum { PART_BYTES = 1 << 20 };

typedef struct { int item, from, to; } pack_part;
typedef struct {
    const wn_loader *ld;
    const pack_part *parts;
} pack_job;

static void pack_task(void *arg, int part, int thread)
{
    const pack_job *j = arg;
    const pack_part *p = &j->parts[part];
    const wn_pack_item *it = &j->ld->items[p->item];
    size_t row = wn_type_row_bytes(it->t->type, it->t->ne[0]);
    (void)thread;
    wn_matrix_pack((char *)j->ld->m->packed + it->offset, it->t->data + (size_t)it->first * row,
                   it->t->type, it->m->n_rows, it->m->n_cols, p->from, p->to);
    wn_gguf_release_pages(j->ld->m->file, it->t, (size_t)(it->first + p->from) * row,
                          (size_t)(p->to - p->from) * row);
}

/* Packs everything the loader collected; progress is told about every 64 MiB. */
wn_status wn_load_pack(wn_loader *ld, const wn_model_opts *o, wn_threads *team, wn_err *err)
{
    wn_model *m = ld->m;
    int n_parts = 0, cap = 0, at = 0;
    if (!ld->n_items) return WN_OK;
    m->packed_bytes = ld->packed_bytes;
    m->packed = wn_os_map(m->packed_bytes, false);
    if (!m->packed)
        return wn_fail(err, WN_ENOMEM, "weights: out of memory for %zu bytes", m->packed_bytes);
    for (int i = 0; i < ld->n_items; i++) {
        const wn_matrix *w = ld->items[i].m;
        cap += (int)((size_t)w->n_rows * wn_type_row_bytes(w->type, w->n_cols) / PART_BYTES) +
               w->n_rows / 16 / 1024 + 2;
    }
    pack_part *parts = WN_NEW_ARRAY(pack_part, cap);
    if (!parts) return wn_fail(err, WN_ENOMEM, "weights: out of memory");
    for (int i = 0; i < ld->n_items; i++) {
        const wn_pack_item *it = &ld->items[i];
        size_t row = wn_type_row_bytes(it->t->type, it->t->ne[0]);
        int64_t rows64 = WN_MAX((int64_t)(PART_BYTES / row / 16 * 16), 16);
        int rows = (int)WN_MIN(rows64, (int64_t)1 << 20);
        for (int r = 0; r < it->m->n_rows; r += rows) {
            if (n_parts == cap) {       /* tiny rows: more parts than guessed */
                pack_part *more = wn_realloc(parts, sizeof *parts * (size_t)(2 * cap));
                if (!more) {
                    wn_free(parts);
                    return wn_fail(err, WN_ENOMEM, "weights: out of memory");
                }
                parts = more;
                cap *= 2;
            }
            parts[n_parts++] = (pack_part){ i, r, WN_MIN(r + rows, it->m->n_rows) };
        }
    }
    while (at < n_parts) {
        int n = WN_MIN(64, n_parts - at);
        pack_job job = { ld, parts + at };
        wn_threads_run(team, pack_task, &job, n);
        at += n;
        if (o->progress) o->progress(o->progress_ctx, (double)at / n_parts);
    }
    for (int i = 0; i < ld->n_items; i++) {
        ld->items[i].m->packed = true;
        ld->items[i].m->data = (char *)m->packed + ld->items[i].offset;
    }
    wn_free(parts);
    return WN_OK;
}
