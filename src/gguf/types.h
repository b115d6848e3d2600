/* gguf/types.h - tensor types: how many values a block holds, in how many bytes, and
 * what they mean. The block layouts are drawn in types_*.c; this is the definition that
 * every packed or vectorised kernel is checked against.
 */
#ifndef WN_GGUF_TYPES_H
#define WN_GGUF_TYPES_H

#include "base/err.h"

/* The numbers are those of the file format. The table has a row for each id that GGUF
 * files use; a row without `decode` can be inspected but not run. */
typedef enum {
    WN_TYPE_F32 = 0, WN_TYPE_F16 = 1, WN_TYPE_Q4_0 = 2, WN_TYPE_Q4_1 = 3,
    WN_TYPE_Q5_0 = 6, WN_TYPE_Q5_1 = 7, WN_TYPE_Q8_0 = 8, WN_TYPE_Q8_1 = 9,
    WN_TYPE_Q2_K = 10, WN_TYPE_Q3_K = 11, WN_TYPE_Q4_K = 12, WN_TYPE_Q5_K = 13,
    WN_TYPE_Q6_K = 14, WN_TYPE_Q8_K = 15, WN_TYPE_IQ2_XXS = 16, WN_TYPE_IQ2_XS = 17,
    WN_TYPE_IQ3_XXS = 18, WN_TYPE_IQ1_S = 19, WN_TYPE_IQ4_NL = 20, WN_TYPE_IQ3_S = 21,
    WN_TYPE_IQ2_S = 22, WN_TYPE_IQ4_XS = 23,
    WN_TYPE_I8 = 24, WN_TYPE_I16 = 25, WN_TYPE_I32 = 26, WN_TYPE_I64 = 27, WN_TYPE_F64 = 28,
    WN_TYPE_IQ1_M = 29, WN_TYPE_BF16 = 30, WN_TYPE_TQ1_0 = 34, WN_TYPE_TQ2_0 = 35,
    WN_TYPE_MXFP4 = 39, WN_TYPE_NVFP4 = 40, WN_TYPE_Q1_0 = 41,
    WN_TYPE_COUNT = 48
} wn_type;

typedef struct {
    const char *name;               /* "Q4_K"; NULL where the id means nothing to us */
    int block;                      /* values per block: 1, 32, 64, 128 or 256 */
    size_t block_bytes;
    /* n values (a multiple of block) from a row of blocks; NULL: known but not runnable. */
    void (*decode)(float *out, const void *blocks, int64_t n);
    /* The nearest blocks to n values (round to nearest, simple absmax/min-max search);
     * for generators and tests, not for quality. NULL where decode is. */
    void (*encode)(void *blocks, const float *x, int64_t n);
} wn_type_info;

/* NULL for an id outside the table or without a name. */
const wn_type_info *wn_type_find(uint32_t id);
/* -1 when no type has the name (case-insensitive). */
int wn_type_by_name(const char *name);
/* Bytes of a row of n values; n must be a multiple of the block. */
size_t wn_type_row_bytes(wn_type t, int64_t n);

/* Half, brain and single precision, rounding to nearest even, NaN kept NaN. */
float wn_f16_to_f32(uint16_t h);
uint16_t wn_f32_to_f16(float f);
static inline float wn_bf16_to_f32(uint16_t h)
{
    union { uint32_t u; float f; } v = { (uint32_t)h << 16 };
    return v.f;
}
uint16_t wn_f32_to_bf16(float f);

/* The scale of an MXFP4 block, 2^(e - 128); below e = 2 not a normal number. */
static inline float wn_e8m0_half(uint8_t e)
{
    union { uint32_t u; float f; } v = { e < 2 ? 0x200000u << e : (uint32_t)(e - 1) << 23 };
    return v.f;
}
/* What the 4-bit codes of IQ4_NL and IQ4_XS, and of MXFP4, stand for. */
extern const int8_t wn_iq4_values[16], wn_mxfp4_values[16];

#endif
