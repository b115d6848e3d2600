/* kernel/codes_avx512.c - the leaf loops of encoded pages on AVX-512 with VNNI. */
#include "kernel/codes_avx512.h"

#include "kernel/codes_simd.h"
#include "kernel/codes_rows_simd.h"

const wn_codes_ops wn_codes_ops_avx512 = WN_CODES_OPS;
const wn_planes_ops wn_planes_ops_avx512 = WN_PLANES_OPS;
