/* probe_avx2.c - the probes' loops on 256 bits. Enough independent chains to hide the
 * latencies; operands are opaque to the compiler so that nothing folds. */
#include "kernel/probe.h"

#include <immintrin.h>

float wn_probe_int8_avx2(long n, double *ops)
{
    __m256i s[8], one = _mm256_set1_epi16(1), w = _mm256_set1_epi8(3), q = _mm256_set1_epi8(-5);
    for (int k = 0; k < 8; k++) s[k] = _mm256_setzero_si256();
    for (long i = 0; i < n; i++)
        for (int k = 0; k < 8; k++) {
            __asm__("" : "+x"(w));
            __m256i p = _mm256_madd_epi16(_mm256_maddubs_epi16(w, q), one);
            s[k] = _mm256_add_epi32(s[k], p);
        }
    for (int k = 1; k < 8; k++) s[0] = _mm256_add_epi32(s[0], s[k]);
    *ops = 8 * 64;
    return (float)_mm256_extract_epi32(s[0], 0);
}

float wn_probe_f32_avx2(long n, double *ops)
{
    __m256 s[12], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
    for (int k = 0; k < 12; k++) s[k] = _mm256_setzero_ps();
    for (long i = 0; i < n; i++)
        for (int k = 0; k < 12; k++) {
            __asm__("" : "+x"(a));
            s[k] = _mm256_fmadd_ps(s[k], a, b);
        }
    for (int k = 1; k < 12; k++) s[0] = _mm256_add_ps(s[0], s[k]);
    *ops = 12 * 16;
    return _mm256_cvtss_f32(s[0]);
}

uint64_t wn_probe_read_avx2(const void *p, size_t n)
{
    const char *bytes = p;
    __m256i s[8];
    for (int k = 0; k < 8; k++) s[k] = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 256)
        for (int k = 0; k < 8; k++)
            s[k] = _mm256_xor_si256(s[k],
                                    _mm256_load_si256((const void *)(bytes + i + 32 * (size_t)k)));
    for (int k = 1; k < 8; k++) s[0] = _mm256_xor_si256(s[0], s[k]);
    return (uint64_t)_mm256_extract_epi64(s[0], 0) ^ (uint64_t)_mm256_extract_epi64(s[0], 3);
}
