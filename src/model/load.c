/* model/load.c - from a file to weights in memory.
 *
 * The header has been checked by gguf/; here its numbers get a meaning: hyperparameters
 * with bounds, tensors with exact shapes. Quantised matrices are then repacked into one
 * block (rows interleaved, see kernel/matmul_pack.c), all threads packing, and the pages
 * they came from leave the process; the rest stays mapped.
 */
#include "model/load.h"
#include "base/alloc.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

static const wn_arch *const archs[] = { &wn_arch_llama, &wn_arch_qwen2, &wn_arch_qwen3 };

/* ---- hyperparameters ------------------------------------------------------------ */

/* Reads "<arch>.<field>". */
static wn_status hp_int(const wn_model *m, const char *field, bool need, int64_t min, int64_t max,
                        int *out, wn_err *err)
{
    char key[128];
    int64_t v = *out;
    snprintf(key, sizeof key, "%s.%s", m->arch->name, field);
    wn_status st = wn_gguf_int(m->file, key, need, min, max, &v, err);
    if (!st) *out = (int)v;
    return st;
}

static wn_status hp_float(const wn_model *m, const char *field, bool need, double min, double max,
                          double *out, wn_err *err)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", m->arch->name, field);
    wn_status st = wn_gguf_float(m->file, key, need, out, err);
    if (!st && !(*out >= min && *out <= max))           /* NaN fails too */
        return wn_fail(err, WN_EFORMAT, "%s is %g, expected %g to %g", key, *out, min, max);
    return st;
}

static wn_status read_rope_scaling(wn_model *m, wn_err *err)
{
    char key[128];
    wn_str type = { NULL, 0 };
    double factor = 1;
    snprintf(key, sizeof key, "%s.rope.scaling.type", m->arch->name);
    wn_status st = wn_gguf_string(m->file, key, false, &type, err);
    if (st) return st;
    m->hp.rope_linear = 1;
    if (type.p && !wn_str_is(type, "none") && !wn_str_is(type, "linear"))
        return wn_fail(err, WN_EUNSUPPORTED, "%s is \"%.*s\": this version knows none and linear", key,
                       (int)WN_MIN(type.n, (size_t)64), type.p);
    if (type.p && wn_str_is(type, "none")) return WN_OK;
    if ((st = hp_float(m, "rope.scale_linear", false, 1e-3, 1e6, &factor, err))) return st; /* older files */
    if ((st = hp_float(m, "rope.scaling.factor", false, 1e-3, 1e6, &factor, err))) return st;
    m->hp.rope_linear = factor;
    return WN_OK;
}

static wn_status read_hparams(wn_model *m, wn_err *err)
{
    wn_hparams *h = &m->hp;
    wn_status st;
    double eps = 1e-5, base = 10000;
    if ((st = hp_int(m, "block_count", true, 1, 1024, &h->n_layers, err))) return st;
    if ((st = hp_int(m, "embedding_length", true, 1, 1 << 17, &h->n_embd, err))) return st;
    if ((st = hp_int(m, "attention.head_count", true, 1, 1 << 12, &h->n_heads, err))) return st;
    h->n_kv_heads = h->n_heads;
    if ((st = hp_int(m, "attention.head_count_kv", false, 1, 1 << 12, &h->n_kv_heads, err))) return st;
    if (h->n_heads % h->n_kv_heads)
        return wn_fail(err, WN_EFORMAT, "%s.attention.head_count is %d, not a multiple of head_count_kv %d",
                       m->arch->name, h->n_heads, h->n_kv_heads);
    h->k_dim = h->n_embd / h->n_heads;     /* unless the file says otherwise */
    if ((st = hp_int(m, "attention.key_length", false, 1, 512, &h->k_dim, err))) return st;
    h->v_dim = h->k_dim;
    if ((st = hp_int(m, "attention.value_length", false, 1, 512, &h->v_dim, err))) return st;
    if (h->k_dim > 512 || h->k_dim < 2 || h->v_dim < 1 || h->v_dim > 512)
        return wn_fail(err, WN_EUNSUPPORTED, "%s: heads of %d and %d values, supported are 2 to 512",
                       m->arch->name, h->k_dim, h->v_dim);
    if ((st = hp_int(m, "feed_forward_length", true, 1, 1 << 18, &h->n_ff, err))) return st;
    if ((st = hp_int(m, "context_length", true, 1, 1 << 26, &h->n_ctx_train, err))) return st;
    if ((st = hp_float(m, "attention.layer_norm_rms_epsilon", true, 0, 1, &eps, err))) return st;
    h->norm_eps = (float)eps;
    h->rope_dims = h->k_dim & ~1;
    if ((st = hp_int(m, "rope.dimension_count", false, 2, 2 * WN_ROPE_PAIRS_MAX, &h->rope_dims, err))) return st;
    if (h->rope_dims > h->k_dim || h->rope_dims % 2)
        return wn_fail(err, WN_EFORMAT, "%s.rope.dimension_count is %d, expected an even number up to the head size %d",
                       m->arch->name, h->rope_dims, h->k_dim);
    if ((st = hp_float(m, "rope.freq_base", false, 1, 1e12, &base, err))) return st;
    h->rope_base = base;
    if ((st = hp_int(m, "attention.sliding_window", false, 0, 1 << 26, &h->window, err))) return st;
    if (h->window >= h->n_ctx_train) h->window = 0;     /* never reached */
    return read_rope_scaling(m, err);
}

/* ---- tensors --------------------------------------------------------------------- */

static void loader_fail(wn_loader *ld, wn_status st, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void loader_fail(wn_loader *ld, wn_status st, const char *fmt, ...)
{
    char text[300];
    va_list ap;
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

void wn_load_matrix(wn_loader *ld, wn_matrix *out, int n_rows, int n_cols, const char *name, int layer)
{
    char full[96];
    if (ld->status) return;
    layer_name(full, name, layer);
    const wn_tensor *t = wn_gguf_tensor(ld->m->file, full);
    if (!t) {
        loader_fail(ld, WN_EFORMAT, "tensor %s is missing", full);
        return;
    }
    if (t->ne[0] != n_cols || t->ne[1] != n_rows || t->ne[2] != 1 || t->ne[3] != 1) {
        loader_fail(ld, WN_EFORMAT, "tensor %s is %lld x %lld, expected %d x %d", full, (long long)t->ne[0],
                    (long long)t->ne[1], n_cols, n_rows);
        return;
    }
    if (!wn_matmul_supports(t->type, n_cols)) {
        loader_fail(ld, WN_EUNSUPPORTED, "tensor %s: no kernel for type %s with rows of %d", full,
                    wn_type_find((uint32_t)t->type)->name, n_cols);
        return;
    }
    *out = (wn_matrix){ .type = t->type, .n_rows = n_rows, .n_cols = n_cols, .data = t->data };
    size_t packed = ld->no_repack ? 0 : wn_matrix_packed_bytes(t->type, n_rows, n_cols);
    if (!packed) {
        ld->m->weight_bytes += t->bytes;
        return;
    }
    if (ld->n_items == ld->cap_items) {
        int cap = ld->cap_items ? 2 * ld->cap_items : 64;
        wn_pack_item *p = wn_realloc(ld->items, sizeof *p * (size_t)cap);
        if (!p) {
            loader_fail(ld, WN_ENOMEM, "model: out of memory");
            return;
        }
        ld->items = p;
        ld->cap_items = cap;
    }
    ld->items[ld->n_items++] = (wn_pack_item){ .m = out, .t = t, .offset = ld->packed_bytes };
    ld->packed_bytes += (packed + 4095) / 4096 * 4096;
    ld->m->weight_bytes += packed;
}

void wn_load_vector(wn_loader *ld, const float **out, int n, bool need, const char *name, int layer)
{
    char full[96];
    if (ld->status) return;
    *out = NULL;
    layer_name(full, name, layer);
    const wn_tensor *t = wn_gguf_tensor(ld->m->file, full);
    if (!t) {
        if (need) loader_fail(ld, WN_EFORMAT, "tensor %s is missing", full);
        return;
    }
    const wn_type_info *ti = wn_type_find((uint32_t)t->type);
    if (t->ne[0] != n || t->ne[1] != 1 || t->ne[2] != 1 || t->ne[3] != 1) {
        loader_fail(ld, WN_EFORMAT, "tensor %s has %lld values, expected %d", full, (long long)t->ne[0], n);
        return;
    }
    if (!ti->decode) {
        loader_fail(ld, WN_EUNSUPPORTED, "tensor %s: type %s cannot be read yet", full, ti->name);
        return;
    }
    size_t room = ((size_t)n + 15) / 16 * 16;
    WN_ASSERT(ld->n_vectors + room <= ld->cap_vectors);
    float *v = ld->vectors + ld->n_vectors;
    ti->decode(v, t->data, n);
    for (int i = 0; i < n; i++)
        if (!isfinite(v[i])) {
            loader_fail(ld, WN_EFORMAT, "tensor %s: value %d is not a finite number", full, i);
            return;
        }
    ld->n_vectors += room;
    *out = v;
}

void wn_load_ends(wn_loader *ld)
{
    wn_model *m = ld->m;
    const wn_hparams *h = &m->hp;
    bool tied = !wn_gguf_tensor(m->file, "output.weight");
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
    wn_load_vector(ld, &L->attn_norm, h->n_embd, true, "blk.%d.attn_norm.weight", layer);
    wn_load_matrix(ld, &L->wq, h->n_heads * h->k_dim, h->n_embd, "blk.%d.attn_q.weight", layer);
    wn_load_matrix(ld, &L->wk, h->n_kv_heads * h->k_dim, h->n_embd, "blk.%d.attn_k.weight", layer);
    wn_load_matrix(ld, &L->wv, h->n_kv_heads * h->v_dim, h->n_embd, "blk.%d.attn_v.weight", layer);
    wn_load_matrix(ld, &L->wo, h->n_embd, h->n_heads * h->v_dim, "blk.%d.attn_output.weight", layer);
}

void wn_load_feed_forward(wn_loader *ld, wn_layer *L, int layer)
{
    const wn_hparams *h = &ld->m->hp;
    wn_load_vector(ld, &L->ffn_norm, h->n_embd, true, "blk.%d.ffn_norm.weight", layer);
    wn_load_matrix(ld, &L->gate, h->n_ff, h->n_embd, "blk.%d.ffn_gate.weight", layer);
    wn_load_matrix(ld, &L->up, h->n_ff, h->n_embd, "blk.%d.ffn_up.weight", layer);
    wn_load_matrix(ld, &L->down, h->n_embd, h->n_ff, "blk.%d.ffn_down.weight", layer);
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
    wn_matrix_pack((char *)j->ld->m->packed + it->offset, it->t->data, it->t->type, it->m->n_rows,
                   it->m->n_cols, p->from, p->to);
    wn_gguf_release_pages(j->ld->m->file, it->t, (size_t)p->from * row, (size_t)(p->to - p->from) * row);
}

/* Packs everything the loader collected; progress is told about every 64 MiB. */
static wn_status pack_all(wn_loader *ld, const wn_model_opts *o, wn_threads *team, wn_err *err)
{
    wn_model *m = ld->m;
    int n_parts = 0, cap = 0, at = 0;
    if (!ld->n_items) return WN_OK;
    m->packed_bytes = ld->packed_bytes;
    m->packed = wn_os_map(m->packed_bytes, false);
    if (!m->packed) return wn_fail(err, WN_ENOMEM, "weights: out of memory for %zu bytes", m->packed_bytes);
    for (int i = 0; i < ld->n_items; i++) cap += (int)(ld->items[i].t->bytes / PART_BYTES) + ld->items[i].m->n_rows / 16 / 1024 + 2;
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

/* ---- opening --------------------------------------------------------------------- */

static wn_status make_lanes(wn_model *m, wn_err *err)
{
    const wn_hparams *h = &m->hp;
    int n = h->n_layers * h->n_kv_heads;
    m->lanes = WN_NEW_ARRAY(wn_lane, n);
    m->first_lane = WN_NEW_ARRAY(int, h->n_layers + 1);
    if (!m->lanes || !m->first_lane) return wn_fail(err, WN_ENOMEM, "model: out of memory");
    for (int l = 0; l < h->n_layers; l++) {
        m->first_lane[l] = l * h->n_kv_heads;
        for (int i = 0; i < h->n_kv_heads; i++)
            m->lanes[l * h->n_kv_heads + i] = (wn_lane){ .layer = (int16_t)l, .head = (int16_t)i,
                .k_dim = (int16_t)h->k_dim, .v_dim = (int16_t)h->v_dim, .window = m->layers[l].window };
    }
    m->first_lane[h->n_layers] = n;
    m->map = (wn_lane_map){ .n_lanes = n, .n_layers = h->n_layers, .lanes = m->lanes, .first = m->first_lane };
    m->shape = (wn_attend_shape){ .n_heads = h->n_heads, .n_kv_heads = h->n_kv_heads, .k_dim = h->k_dim,
                                  .v_dim = h->v_dim, .scale = 1.0f / sqrtf((float)h->k_dim) };
    return WN_OK;
}

static wn_status make_rope(wn_model *m, wn_err *err)
{
    const wn_hparams *h = &m->hp;
    float factors[WN_ROPE_PAIRS_MAX];
    const wn_tensor *t = wn_gguf_tensor(m->file, "rope_freqs.weight");
    if (t) {
        if (t->ne[0] != h->rope_dims / 2 || t->ne[1] != 1 || t->type != WN_TYPE_F32)
            return wn_fail(err, WN_EFORMAT, "tensor rope_freqs.weight has %lld values, expected %d of type F32",
                           (long long)t->ne[0], h->rope_dims / 2);
        memcpy(factors, t->data, (size_t)(h->rope_dims / 2) * sizeof(float));
        for (int i = 0; i < h->rope_dims / 2; i++)
            if (!(factors[i] > 0) || !isfinite(factors[i]))
                return wn_fail(err, WN_EFORMAT, "tensor rope_freqs.weight: value %d is %g, expected a positive number",
                               i, (double)factors[i]);
    }
    wn_rope_init(&m->rope, h->rope_dims, m->arch->rope_neox, h->rope_base, h->rope_linear, t ? factors : NULL);
    return WN_OK;
}

static wn_status find_arch(wn_model *m, wn_err *err)
{
    wn_str name;
    char known[256] = "";
    wn_status st = wn_gguf_string(m->file, "general.architecture", true, &name, err);
    if (st) return st;
    for (size_t i = 0; i < WN_COUNT(archs); i++) {
        if (wn_str_is(name, archs[i]->name)) m->arch = archs[i];
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", archs[i]->name);
    }
    if (m->arch) return WN_OK;
    return wn_fail(err, WN_EUNSUPPORTED, "general.architecture is \"%.*s\": this version runs %s",
                   (int)WN_MIN(name.n, (size_t)64), name.p, known);
}

static wn_status load_weights(wn_model *m, const wn_model_opts *o, wn_err *err)
{
    wn_loader ld = { .m = m, .no_repack = o->no_repack, .err = err };
    wn_threads *team = NULL;
    wn_status st;
    m->layers = WN_NEW_ARRAY(wn_layer, m->hp.n_layers);
    if (!m->layers) return wn_fail(err, WN_ENOMEM, "model: out of memory");
    /* Room for the vectors: those the file has cannot hold more floats than it has values
     * in tensors of one dimension. */
    for (size_t i = 0; i < wn_gguf_n_tensors(m->file); i++) {
        const wn_tensor *t = wn_gguf_tensor_at(m->file, i);
        m->n_params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
        if (t->ne[1] == 1 && t->ne[2] == 1 && t->ne[3] == 1) ld.cap_vectors += ((size_t)t->ne[0] + 15) / 16 * 16;
    }
    m->vectors_bytes = ld.cap_vectors * sizeof(float);
    m->vectors = wn_alloc_aligned(m->vectors_bytes);
    if (!m->vectors) return wn_fail(err, WN_ENOMEM, "model: out of memory");
    ld.vectors = m->vectors;
    m->weight_bytes = m->vectors_bytes;
    if ((st = m->arch->load(&ld, err))) goto done;
    if ((st = make_rope(m, err))) goto done;
    if ((st = wn_threads_open(&team, o->n_threads ? o->n_threads : wn_os_n_cpus(), err))) goto done;
    if ((st = pack_all(&ld, o, team, err))) goto done;
    if (!m->head.data) m->head = m->embed;
    st = make_lanes(m, err);
done:
    wn_threads_close(team);
    wn_free(ld.items);
    return st;
}

wn_status wn_model_open(wn_model **out, const char *path, const wn_model_opts *opts, wn_err *err)
{
    wn_model_opts o = opts ? *opts : (wn_model_opts){ 0 };
    wn_status st;
    wn_str name = { NULL, 0 }, chat = { NULL, 0 };
    *out = NULL;
    wn_model *m = WN_NEW(wn_model);
    if (!m) return wn_fail(err, WN_ENOMEM, "model %s: out of memory", path);
    if ((st = wn_gguf_open(&m->file, path, err))) goto fail;
    if ((st = wn_gguf_string(m->file, "general.name", false, &name, err))) goto fail;
    m->name = wn_strndup(name.p ? name.p : "", name.n);
    if ((st = wn_gguf_string(m->file, "tokenizer.chat_template", false, &chat, err))) goto fail;
    m->chat_template = wn_strndup(chat.p ? chat.p : "", chat.n);
    if (!m->name || !m->chat_template) {
        st = wn_fail(err, WN_ENOMEM, "model: out of memory");
        goto fail;
    }
    if ((st = wn_tokenizer_open(&m->tokenizer, m->file, err))) goto fail;
    m->hp.n_vocab = wn_tokenizer_n_vocab(m->tokenizer);
    if (!o.vocab_only) {
        if ((st = find_arch(m, err))) goto fail;
        if ((st = read_hparams(m, err))) goto fail;
        if ((st = load_weights(m, &o, err))) goto fail;
    }
    *out = m;
    return WN_OK;
fail:
    wn_model_close(m);
    return strstr(err ? err->text : path, path) ? st : wn_fail_prefix(err, st, "%s", path);
}

void wn_model_close(wn_model *m)
{
    if (!m) return;
    wn_tokenizer_close(m->tokenizer);
    wn_os_unmap(m->packed, m->packed_bytes);
    wn_free(m->vectors);
    wn_free(m->layers);
    wn_free(m->lanes);
    wn_free(m->first_lane);
    wn_free(m->name);
    wn_free(m->chat_template);
    wn_gguf_close(m->file);
    wn_free(m);
}

static void count_matrix(const wn_matrix *w, int64_t *macs, size_t *bytes)
{
    *macs += (int64_t)w->n_rows * w->n_cols;
    *bytes += (size_t)w->n_rows * wn_type_row_bytes(w->type, w->n_cols);
}

void wn_model_get_info(const wn_model *m, wn_model_info *out)
{
    const wn_hparams *h = &m->hp;
    int64_t body = 0, head = 0;
    size_t bytes = 0;
    if (m->layers) {
        for (int l = 0; l < h->n_layers; l++) {
            const wn_layer *L = &m->layers[l];
            const wn_matrix *w[] = { &L->wq, &L->wk, &L->wv, &L->wo, &L->gate, &L->up, &L->down };
            for (size_t i = 0; i < WN_COUNT(w); i++) count_matrix(w[i], &body, &bytes);
        }
        count_matrix(&m->head, &head, &bytes);
    }
    *out = (wn_model_info){
        .architecture = m->arch ? m->arch->name : "", .name = m->name, .chat_template = m->chat_template,
        .n_layers = h->n_layers, .n_embd = h->n_embd, .n_heads = h->n_heads, .n_kv_heads = h->n_kv_heads,
        .k_dim = h->k_dim, .v_dim = h->v_dim, .n_vocab = h->n_vocab, .n_ctx_train = h->n_ctx_train,
        .n_params = m->n_params, .file_bytes = wn_gguf_file_bytes(m->file), .weight_bytes = m->weight_bytes,
        .step_bytes = bytes, .body_macs = body, .head_macs = head,
    };
}

/* ---- fingerprint ------------------------------------------------------------------ */

typedef struct {
    const wn_model *m;
    XXH128_hash_t *sums;
} sum_job;

static void sum_task(void *arg, int part, int thread)
{
    const sum_job *j = arg;
    const wn_tensor *t = wn_gguf_tensor_at(j->m->file, (size_t)part);
    (void)thread;
    j->sums[part] = XXH3_128bits(t->data, t->bytes);
    if (j->m->packed) wn_gguf_release_pages(j->m->file, t, 0, t->bytes);    /* read once, not needed again */
}

void wn_model_fingerprint(const wn_model *m, wn_threads *team, uint8_t out[16])
{
    size_t n = wn_gguf_n_tensors(m->file), n_kv = wn_gguf_n_kv(m->file);
    XXH3_state_t *s = XXH3_createState();
    sum_job j = { m, WN_NEW_ARRAY(XXH128_hash_t, n) };
    WN_ASSERT(s && j.sums);
    XXH3_128bits_reset(s);
    for (size_t i = 0; i < n_kv; i++) {
        const wn_gguf_kv *kv = wn_gguf_kv_at(m->file, i);
        uint64_t head[3] = { kv->key.n, (uint64_t)kv->type, kv->bytes };
        XXH3_128bits_update(s, head, sizeof head);
        XXH3_128bits_update(s, kv->key.p, kv->key.n);
        XXH3_128bits_update(s, kv->data, kv->bytes);
    }
    wn_threads_run(team, sum_task, &j, (int)n);
    for (size_t i = 0; i < n; i++) {
        const wn_tensor *t = wn_gguf_tensor_at(m->file, i);
        XXH3_128bits_update(s, t->name, strlen(t->name) + 1);
        XXH3_128bits_update(s, t->ne, sizeof t->ne);
        XXH3_128bits_update(s, &j.sums[i], sizeof j.sums[i]);
    }
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(s));
    memcpy(out, c.digest, 16);
    XXH3_freeState(s);
    wn_free(j.sums);
}
