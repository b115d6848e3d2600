/* probe_scalar.c - the probes' loops in plain C: what the scalar table could reach. */
#include "kernel/probe.h"

#include <string.h>

float wn_probe_int8_scalar(long n, double *ops)
{
    int32_t s[8] = { 0 };
    volatile int8_t start = 3;
    int a = start, b = start + 1;
    for (long i = 0; i < n; i++)
        for (int k = 0; k < 8; k++) s[k] += a * (b ^ s[k]);
    *ops = 16;
    return (float)(s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7]);
}

float wn_probe_f32_scalar(long n, double *ops)
{
    float s[8] = { 0 };
    volatile float start = 0.999f;
    float a = start, b = start;
    for (long i = 0; i < n; i++)
        for (int k = 0; k < 8; k++) s[k] = s[k] * a + b;
    *ops = 16;
    return s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

uint64_t wn_probe_read_scalar(const void *p, size_t n)
{
    const char *bytes = p;
    uint64_t s[8] = { 0 };
    for (size_t i = 0; i < n; i += 64)
        for (size_t k = 0; k < 8; k++) {
            uint64_t v;
            memcpy(&v, bytes + i + 8 * k, 8);
            s[k] ^= v;
        }
    return s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
}
