/* probe_avx512.c - the probes' loops on 512 bits. Enough independent chains to hide the
 * latencies; operands are opaque to the compiler so that nothing folds. */
#include "kernel/probe.h"

#include <immintrin.h>

enum { CHAINS = 16 };

float wn_probe_int8_avx512(long n, double *ops)
{
    __m512i s[CHAINS], w = _mm512_set1_epi8(3), q = _mm512_set1_epi8(-5);
    for (int k = 0; k < CHAINS; k++) s[k] = _mm512_setzero_si512();
    for (long i = 0; i < n; i++)
        for (int k = 0; k < CHAINS; k++) {
            __asm__("" : "+v"(w));
            s[k] = _mm512_dpbusd_epi32(s[k], w, q);
        }
    for (int k = 1; k < CHAINS; k++) s[0] = _mm512_add_epi32(s[0], s[k]);
    *ops = CHAINS * 128;
    return (float)_mm_cvtsi128_si32(_mm512_castsi512_si128(s[0]));
}

float wn_probe_f32_avx512(long n, double *ops)
{
    __m512 s[CHAINS], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
    for (int k = 0; k < CHAINS; k++) s[k] = _mm512_setzero_ps();
    for (long i = 0; i < n; i++)
        for (int k = 0; k < CHAINS; k++) {
            __asm__("" : "+v"(a));
            s[k] = _mm512_fmadd_ps(s[k], a, b);
        }
    for (int k = 1; k < CHAINS; k++) s[0] = _mm512_add_ps(s[0], s[k]);
    *ops = CHAINS * 32;
    return _mm512_cvtss_f32(s[0]);
}

float wn_probe_bf16_avx512(long n, double *ops)
{
    __m512 s[CHAINS];
    __m512i w = _mm512_set1_epi16(0x3c00);
    for (int k = 0; k < CHAINS; k++) s[k] = _mm512_setzero_ps();
    for (long i = 0; i < n; i++)
        for (int k = 0; k < CHAINS; k++) {
            __asm__("" : "+v"(w));
            s[k] = _mm512_dpbf16_ps(s[k], (__m512bh)w, (__m512bh)w);
        }
    for (int k = 1; k < CHAINS; k++) s[0] = _mm512_add_ps(s[0], s[k]);
    *ops = CHAINS * 64;
    return _mm512_cvtss_f32(s[0]);
}

uint64_t wn_probe_read_avx512(const void *p, size_t n)
{
    const char *bytes = p;
    __m512i s[8];
    for (int k = 0; k < 8; k++) s[k] = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 512)
        for (int k = 0; k < 8; k++)
            s[k] = _mm512_xor_si512(s[k], _mm512_load_si512(bytes + i + 64 * (size_t)k));
    for (int k = 1; k < 8; k++) s[0] = _mm512_xor_si512(s[0], s[k]);
    return (uint64_t)_mm512_reduce_add_epi64(s[0]);
}
