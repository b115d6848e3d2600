/* page/gear.h - an encoded format with something beside its codes: numbers that stand out, and a
 * product of small rank, as in GEAR (Kang et al., 2024, "GEAR: An Efficient KV Cache Compression
 * Recipe for Near-Lossless Generative Inference of LLM").
 *
 *     row of a slot = what the base format's codes say + its sparse numbers + sum of a_r p_r
 *
 * A frame is the base format's frame, then sparse numbers, then factors; each part a multiple of
 * 64 bytes, 0 where a slot is masked, missing or spoiled:
 *
 *     base              as its file draws it
 *     sparse numbers    by slot: e of each 64 channels begun, E = e * blocks of 64 channels
 *                       halves value[E][P], bytes channel[E][P] within its block
 *                       by channel (K of formats with parameters by channel): e of the page
 *                       halves value[e][D], bytes slot[e][D]
 *     factors of rank R floats scale[R]; signed bytes p[R][D], then signed bytes a[R][P]
 *
 * A sparse number is what its value is more than its codes say, in channels, also where the base
 * format turns rows: a number that stands out does so before they are turned.
 *
 * Order of sums. score: the base format's logit, then + q v for each sparse number of the slot in
 * the order of the frame, then for each r + (scale_r times the 16 chains of q p_r) times a_r; a
 * product and an addition each. mix: a row of its own, from 0: w v for each slot of the run with
 * w not 0, sparse number by sparse number; then for each r (scale_r times the 16 chains of w a_r)
 * times p_r; turned if the base mixes turned rows; added to what the base format's mix has left.
 * score gives the same bits for any n_q, first and n; mix for any n_q.
 *
 * Repack: sparse numbers by slot move with it; factors and numbers by channel belong to the page.
 * Not finite: spoiled slots are the base format's affair, they have nothing beside their codes.
 */
#ifndef WN_PAGE_GEAR_H
#define WN_PAGE_GEAR_H

#include "page/coded.h"

typedef struct {
    const wn_format *base;
    int sparse, rank;                   /* e and R; 0: none */
    bool k_by_channel;                  /* K of the base has parameters by channel */
} wn_gear;

enum { WN_GEAR_RANK = 8, WN_GEAR_SPARSE = 4 };      /* at most */

size_t wn_gear_bytes(const wn_gear *g, bool is_k, int P, int head_dim);
void wn_gear_encode(const wn_gear *g, bool is_k, void *frame, const void *raw,
                    const wn_format *raw_format, int P, int n, uint64_t keep, int head_dim);
void wn_gear_get(const wn_gear *g, bool is_k, const void *frame, int P, int slot, float *row,
                 int head_dim);
void wn_gear_copy(const wn_gear *g, bool is_k, void *dst, int dst_slot, const void *src,
                  int src_slot, int P, int head_dim);
void wn_gear_score(const wn_gear *g, const wn_page_score *s);
void wn_gear_mix(const wn_gear *g, const wn_page_mix *m);

/* The table of BASE with SPARSE numbers of 64 and a product of rank RANK beside it. BY_CHANNEL: K
 * of the base has parameters by channel; TURNED: it mixes turned rows. */
#define WN_GEAR_FORMAT(IDENT, NAME, BASE, SPARSE, RANK, BY_CHANNEL, TURNED)                   \
    static const wn_gear IDENT##_gear = {                                                     \
        .base = &wn_format_##BASE,                                                            \
        .sparse = SPARSE,                                                                     \
        .rank = RANK,                                                                         \
        .k_by_channel = BY_CHANNEL,                                                           \
    };                                                                                        \
    static size_t IDENT##_k_bytes(int P, int D)                                               \
    {                                                                                         \
        return wn_gear_bytes(&IDENT##_gear, true, P, D);                                      \
    }                                                                                         \
    static size_t IDENT##_v_bytes(int P, int D)                                               \
    {                                                                                         \
        return wn_gear_bytes(&IDENT##_gear, false, P, D);                                     \
    }                                                                                         \
    static void IDENT##_encode_k(void *f, const void *raw, const wn_format *rf, int P, int n, \
                                 uint64_t keep, int D)                                        \
    {                                                                                         \
        wn_gear_encode(&IDENT##_gear, true, f, raw, rf, P, n, keep, D);                       \
    }                                                                                         \
    static void IDENT##_encode_v(void *f, const void *raw, const wn_format *rf, int P, int n, \
                                 uint64_t keep, int D)                                        \
    {                                                                                         \
        wn_gear_encode(&IDENT##_gear, false, f, raw, rf, P, n, keep, D);                      \
    }                                                                                         \
    static void IDENT##_get_k(const void *f, int P, int slot, float *row, int D)              \
    {                                                                                         \
        wn_gear_get(&IDENT##_gear, true, f, P, slot, row, D);                                 \
    }                                                                                         \
    static void IDENT##_get_v(const void *f, int P, int slot, float *row, int D)              \
    {                                                                                         \
        wn_gear_get(&IDENT##_gear, false, f, P, slot, row, D);                                \
    }                                                                                         \
    static void IDENT##_copy_k(void *dst, int to, const void *src, int from, int P, int D)    \
    {                                                                                         \
        wn_gear_copy(&IDENT##_gear, true, dst, to, src, from, P, D);                          \
    }                                                                                         \
    static void IDENT##_copy_v(void *dst, int to, const void *src, int from, int P, int D)    \
    {                                                                                         \
        wn_gear_copy(&IDENT##_gear, false, dst, to, src, from, P, D);                         \
    }                                                                                         \
    static void IDENT##_ready(void *out, const float *q, size_t stride, int n_q, int D)       \
    {                                                                                         \
        wn_format_##BASE.ready(out, q, stride, n_q, D);                                       \
    }                                                                                         \
    static void IDENT##_score(const wn_page_score *s) { wn_gear_score(&IDENT##_gear, s); }    \
    static void IDENT##_mix(const wn_page_mix *m) { wn_gear_mix(&IDENT##_gear, m); }          \
    const wn_format wn_format_##IDENT = {                                                     \
        .name = NAME,                                                                         \
        .lag = 1,                                                                             \
        .k_repack = (BY_CHANNEL) || (RANK) ? WN_REPACK_RAW_ONLY : WN_REPACK_COPY,             \
        .v_repack = (RANK) ? WN_REPACK_RAW_ONLY : WN_REPACK_COPY,                             \
        .k_bytes = IDENT##_k_bytes,                                                           \
        .v_bytes = IDENT##_v_bytes,                                                           \
        .get_k = IDENT##_get_k,                                                               \
        .get_v = IDENT##_get_v,                                                               \
        .copy_k = IDENT##_copy_k,                                                             \
        .copy_v = IDENT##_copy_v,                                                             \
        .encode_k = IDENT##_encode_k,                                                         \
        .encode_v = IDENT##_encode_v,                                                         \
        .ready = IDENT##_ready,                                                               \
        .score = IDENT##_score,                                                               \
        .mix = IDENT##_mix,                                                                   \
        .mixed = (TURNED) ? wn_coded_mixed : NULL,                                            \
    }

#endif
