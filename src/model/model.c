/* model/model.c - opening a model: file, tokenizer, architecture, weights; and asking it.
 *
 * The header has been checked by gguf/. Hyperparameters get their meaning in hparams.c, the
 * architecture's file asks for its tensors (load.c), and from both come the lanes of the
 * cache and the rotations. An architecture this version does not know names itself.
 */
#include "model/load.h"
#include "base/alloc.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

static const wn_arch *const archs[] = {
    &wn_arch_llama, &wn_arch_qwen2, &wn_arch_qwen3, &wn_arch_gemma2, &wn_arch_gemma3, &wn_arch_phi3,
    &wn_arch_smollm3, &wn_arch_qwen3moe, &wn_arch_olmoe, &wn_arch_gptoss,
};

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
                .k_dim = (int16_t)h->k_dim, .v_dim = (int16_t)h->v_dim,
                .window = m->layers[l].window };
    }
    m->first_lane[h->n_layers] = n;
    m->map = (wn_lane_map){ .n_lanes = n, .n_layers = h->n_layers, .lanes = m->lanes,
                            .first = m->first_lane };
    m->shape = (wn_attend_shape){ .n_heads = h->n_heads, .n_kv_heads = h->n_kv_heads,
                                  .k_dim = h->k_dim, .v_dim = h->v_dim, .scale = h->attn_scale,
                                  .softcap = h->attn_softcap };
    return WN_OK;
}

static wn_status find_arch(wn_model *m, wn_err *err)
{
    wn_str name;
    char known[300] = "";
    wn_status st = wn_gguf_string(m->file, "general.architecture", true, &name, err);
    if (st) return st;
    for (size_t i = 0; i < WN_COUNT(archs); i++) {
        if (wn_str_is(name, archs[i]->name)) m->arch = archs[i];
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "",
                 archs[i]->name);
    }
    if (m->arch) return WN_OK;
    return wn_fail(err, WN_EUNSUPPORTED, "general.architecture is \"%.*s\": this version runs %s",
                   (int)WN_MIN(name.n, (size_t)64), name.p, known);
}

static bool is_bias(const char *name)
{
    size_t n = strlen(name);
    return n > 5 && !strcmp(name + n - 5, ".bias");
}

static wn_status load_weights(wn_model *m, const wn_model_opts *o, wn_err *err)
{
    wn_loader ld = { .m = m, .no_repack = o->no_repack, .err = err };
    wn_threads *team = NULL;
    wn_status st;
    m->layers = WN_NEW_ARRAY(wn_layer, m->hp.n_layers);
    m->expert_matrices = WN_NEW_ARRAY(wn_matrix,
                                      (size_t)m->hp.n_layers * (size_t)m->hp.n_experts * 3 + 1);
    ld.asked = WN_NEW_ARRAY(bool, wn_gguf_n_tensors(m->file) + 1);
    if (!m->layers || !m->expert_matrices || !ld.asked) {
        st = wn_fail(err, WN_ENOMEM, "model: out of memory");
        goto done;
    }
    /* Room for the vectors: those the file has cannot hold more floats than it has values
     * in tensors of one dimension, and in biases, which experts have one below the other. */
    for (size_t i = 0; i < wn_gguf_n_tensors(m->file); i++) {
        const wn_tensor *t = wn_gguf_tensor_at(m->file, i);
        m->n_params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
        if (t->ne[2] == 1 && t->ne[3] == 1 && (t->ne[1] == 1 || is_bias(t->name)))
            ld.cap_vectors += ((size_t)(t->ne[0] * t->ne[1]) + 15) / 16 * 16;
    }
    m->vectors_bytes = ld.cap_vectors * sizeof(float);
    m->vectors = wn_alloc_aligned(m->vectors_bytes);
    if (!m->vectors) {
        st = wn_fail(err, WN_ENOMEM, "model: out of memory");
        goto done;
    }
    ld.vectors = m->vectors;
    m->weight_bytes = m->vectors_bytes;
    if ((st = m->arch->load(&ld, err))) goto done;
    if ((st = wn_make_ropes(&ld))) goto done;
    wn_load_check_all(&ld);
    if ((st = ld.status)) goto done;
    if ((st = wn_threads_open(&team, o->n_threads ? o->n_threads : wn_os_n_cpus(), err))) goto done;
    if ((st = wn_load_pack(&ld, o, team, err))) goto done;
    if (!m->head.data) m->head = m->embed;
    st = make_lanes(m, err);
done:
    wn_threads_close(team);
    wn_free(ld.items);
    wn_free(ld.asked);
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
        if ((st = wn_read_hparams(m, err))) goto fail;
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
    wn_free(m->expert_matrices);
    wn_free(m->lanes);
    wn_free(m->first_lane);
    wn_free(m->name);
    wn_free(m->chat_template);
    wn_gguf_close(m->file);
    wn_free(m);
}

static void count_matrix(const wn_matrix *w, int64_t *macs, size_t *bytes)
{
    if (!w->n_rows) return;
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
            const wn_matrix *w[] = { &L->wq,   &L->wk, &L->wv,   &L->wo,
                                     &L->gate, &L->up, &L->down, &L->router };
            const wn_matrix *experts[] = { L->gates, L->ups, L->downs };
            for (size_t i = 0; i < WN_COUNT(w); i++) count_matrix(w[i], &body, &bytes);
            for (size_t i = 0; L->gates && i < WN_COUNT(experts); i++)
                /* one like another */
                for (int e = 0; e < h->n_used; e++) count_matrix(experts[i], &body, &bytes);
        }
        count_matrix(&m->head, &head, &bytes);
    }
    *out = (wn_model_info){
        .architecture = m->arch ? m->arch->name : "", .name = m->name,
        .chat_template = m->chat_template, .n_layers = h->n_layers, .n_embd = h->n_embd,
        .n_heads = h->n_heads, .n_kv_heads = h->n_kv_heads, .k_dim = h->k_dim, .v_dim = h->v_dim,
        .n_vocab = h->n_vocab, .n_ctx_train = h->n_ctx_train, .n_params = m->n_params,
        .file_bytes = wn_gguf_file_bytes(m->file), .weight_bytes = m->weight_bytes,
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
    /* read once, not needed again */
    if (j->m->packed) wn_gguf_release_pages(j->m->file, t, 0, t->bytes);
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
