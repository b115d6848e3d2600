/* page/coded.h - what the encoded formats share: a page as parameters and planes of codes.
 *
 *     K frame  parameters | low plane | high plane        columns = slots, depth = channels
 *     V frame  parameters | low plane | high plane        columns = channels, depth = slots
 *
 * (q44 has the high plane first: see there.)
 *
 * Planes lie as kernel/codes.h draws them; columns are rounded up to 16, the depth to a
 * block, each part to 64 bytes. Parameters are halves:
 *
 *     per slot      s[g][P], then m[g][P] where the grid has a minimum; group g of channels
 *     powers        bytes e[g][P] of scales that are powers of two (power.h); K sorted: order[D] before them
 *     per channel   (K only) spoiled slots, 8 bytes and 56 of nothing; s[D], then m[D]
 *
 * A format is a wn_coding for K and one for V: bits, grid, who shares parameters, and whether
 * rows are turned by a Hadamard matrix before they are encoded. A turned format turns the
 * query once (`ready`) and what it has mixed once (`mixed`), no key and no value.
 *
 * Order of sums. A query is quantised once (parameters per slot) or, its channels times s, once per
 * page (per channel): to 8 bits for codes of up to 4, else to 16. A row of weights, times the
 * slots' s, is quantised once for all neighbouring runs of a split in one format, under one scale,
 * to 16 bits. Products with codes are exact, a mix's over all its runs. Then
 *
 *     per slot      logit = scale (chain over groups of channels: s_g t_g [, m_g sum of x_g])
 *     per channel   logit = scale t + sum of q m (16 chains by channel mod 16)
 *     mix           acc = acc + scale t [+ sum of w m (16 chains by slot mod 16, run after run)]
 *
 * Not finite: a slot whose K (or V) row holds an infinity or NaN is spoiled: it reads as NaN, its
 * logit is NaN (its weight, unless exactly 0, makes the answer NaN), as with raw pages. Other
 * slots of the page are what they would be without it.
 */
#ifndef WN_PAGE_CODED_H
#define WN_PAGE_CODED_H

#include "kernel/codes.h"
#include "page/format.h"

typedef struct {
    wn_codes_kind kind;
    wn_codes_grid grid;
    int group;                          /* channels that share parameters (32, 64, 128); 0: all of a
                                           slot's */
    bool by_channel;                    /* K: parameters per channel over the page; RANGE */
    bool turned;
    bool high_first;                    /* of two planes the high one lies before the low one */
    bool powers;                        /* scales are powers of two, a byte each (power.h); CENTRE,
                                           no minimum */
    bool sorted;                        /* K: channels lie in the order of their size over the
                                           page */
    int dropped;                        /* low bits of the codes that encoding makes and no plane
                                           keeps; 0 or 4 of 8 */
    const uint8_t *table;               /* (16), WN_GRID_TABLE */
} wn_coding;

size_t wn_coded_k_bytes(const wn_coding *c, int P, int head_dim);
size_t wn_coded_v_bytes(const wn_coding *c, int P, int head_dim);
void wn_coded_encode_k(const wn_coding *c, void *frame, const void *raw,
                       const wn_format *raw_format, int P, int n, uint64_t keep, int head_dim);
void wn_coded_encode_v(const wn_coding *c, void *frame, const void *raw,
                       const wn_format *raw_format, int P, int n, uint64_t keep, int head_dim);
void wn_coded_get_k(const wn_coding *c, const void *frame, int P, int slot, float *row,
                    int head_dim);
void wn_coded_get_v(const wn_coding *c, const void *frame, int P, int slot, float *row,
                    int head_dim);
void wn_coded_copy_k(const wn_coding *c, void *dst, int dst_slot, const void *src, int src_slot,
                     int P, int head_dim);
void wn_coded_copy_v(const wn_coding *c, void *dst, int dst_slot, const void *src, int src_slot,
                     int P, int head_dim);
void wn_coded_ready(const wn_coding *c, void *out, const float *q, size_t q_stride, int n_q,
                    int head_dim);
void wn_coded_score(const wn_coding *c, const wn_page_score *s);
void wn_coded_mix(const wn_coding *c, const wn_page_mix *m);
void wn_coded_scores(const wn_coding *c, const wn_page_score *s, const wn_page_part *part, int n);
void wn_coded_mixes(const wn_coding *c, const wn_page_mix *m, const wn_page_part *part, int n);
void wn_coded_mixed(float *acc, size_t acc_stride, float *own, size_t own_stride, int n_q,
                    int head_dim);

/* The table of one format: every entry is the function above with the coding filled in. REPACK
 * is K's class (V's is always copy); TURNED as in V's coding. */
#define WN_CODED_FORMAT(IDENT, NAME, K_REPACK, V_TURNED, K, V) \
    WN_CODED_FORMAT_OVER(IDENT, NAME, K_REPACK, V_TURNED, K, V, NULL)

/* The same for frames that begin with a frame of the format COARSE points to. */
#define WN_CODED_FORMAT_OVER(IDENT, NAME, K_REPACK, V_TURNED, K, V, COARSE)                   \
    static size_t IDENT##_k_bytes(int P, int D) { return wn_coded_k_bytes(&K, P, D); }        \
    static size_t IDENT##_v_bytes(int P, int D) { return wn_coded_v_bytes(&V, P, D); }        \
    static void IDENT##_encode_k(void *f, const void *raw, const wn_format *rf, int P, int n, \
                                 uint64_t keep, int D)                                        \
    {                                                                                         \
        wn_coded_encode_k(&K, f, raw, rf, P, n, keep, D);                                     \
    }                                                                                         \
    static void IDENT##_encode_v(void *f, const void *raw, const wn_format *rf, int P, int n, \
                                 uint64_t keep, int D)                                        \
    {                                                                                         \
        wn_coded_encode_v(&V, f, raw, rf, P, n, keep, D);                                     \
    }                                                                                         \
    static void IDENT##_get_k(const void *f, int P, int slot, float *row, int D)              \
    {                                                                                         \
        wn_coded_get_k(&K, f, P, slot, row, D);                                               \
    }                                                                                         \
    static void IDENT##_get_v(const void *f, int P, int slot, float *row, int D)              \
    {                                                                                         \
        wn_coded_get_v(&V, f, P, slot, row, D);                                               \
    }                                                                                         \
    static void IDENT##_copy_k(void *dst, int to, const void *src, int from, int P, int D)    \
    {                                                                                         \
        wn_coded_copy_k(&K, dst, to, src, from, P, D);                                        \
    }                                                                                         \
    static void IDENT##_copy_v(void *dst, int to, const void *src, int from, int P, int D)    \
    {                                                                                         \
        wn_coded_copy_v(&V, dst, to, src, from, P, D);                                        \
    }                                                                                         \
    static void IDENT##_ready(void *out, const float *q, size_t stride, int n_q, int D)       \
    {                                                                                         \
        wn_coded_ready(&K, out, q, stride, n_q, D);                                           \
    }                                                                                         \
    static void IDENT##_score(const wn_page_score *s) { wn_coded_score(&K, s); }              \
    static void IDENT##_mix(const wn_page_mix *m) { wn_coded_mix(&V, m); }                    \
    static void IDENT##_scores(const wn_page_score *s, const wn_page_part *x, int n)          \
    {                                                                                         \
        wn_coded_scores(&K, s, x, n);                                                         \
    }                                                                                         \
    static void IDENT##_mixes(const wn_page_mix *m, const wn_page_part *x, int n)             \
    {                                                                                         \
        wn_coded_mixes(&V, m, x, n);                                                          \
    }                                                                                         \
    const wn_format wn_format_##IDENT = {                                                     \
        .name = NAME,                                                                         \
        .lag = 1,                                                                             \
        .k_repack = K_REPACK,                                                                 \
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
        .scores = IDENT##_scores,                                                             \
        .mixes = IDENT##_mixes,                                                               \
        .mixed = (V_TURNED) ? wn_coded_mixed : NULL,                                          \
        .coarse = COARSE,                                                                     \
    }

#endif
