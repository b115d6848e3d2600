/* kernel.c - which table this CPU runs.
 *
 * Tables are chosen whole: a name must mean one set of results, because it is half of
 * the numerics id. WN_CPU may ask for less than the CPU can do, never for more.
 */
#include "kernel/kernel.h"
#include "kernel/attn.h"
#include "kernel/codes.h"
#include "kernel/lookup.h"
#include "kernel/matmul_ops.h"
#include "kernel/vec.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The parts of a table, in rising order of what they ask of the CPU. */
static const wn_kernels tables[WN_KERNELS_MAX] = {
    { "scalar", "scalar", &wn_vec_ops_scalar, &wn_matmul_ops_scalar, &wn_attn_ops_scalar,
      &wn_codes_ops_scalar, &wn_planes_ops_scalar, &wn_lookup_ops_scalar },
    { "avx2", "avx2", &wn_vec_ops_avx2, &wn_matmul_ops_avx2, &wn_attn_ops_avx2, &wn_codes_ops_avx2,
      &wn_planes_ops_avx2, &wn_lookup_ops_avx2 },
    { "avx512", "avx512", &wn_vec_ops_avx512, &wn_matmul_ops_avx512, &wn_attn_ops_avx512,
      &wn_codes_ops_avx512, &wn_planes_ops_avx512, &wn_lookup_ops_avx512 },
    { "amx", "avx512", &wn_vec_ops_avx512, &wn_matmul_ops_amx, &wn_attn_ops_avx512,
      &wn_codes_ops_avx512, &wn_planes_ops_amx, &wn_lookup_ops_avx512 },
};

static _Atomic(const wn_kernels *) current;

static bool runs(int i)
{
    __builtin_cpu_init();
    if (i == 0) return true;
    /* F16C has no name in older compilers' lists; every AVX2 CPU has it. */
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (i == 1) return avx2;
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vnni");
    if (i == 2) return avx512;
    return avx512 && wn_matmul_amx_runs();
}

int wn_kernels_all(const wn_kernels *out[WN_KERNELS_MAX])
{
    int n = 0;
    for (int i = 0; i < WN_KERNELS_MAX; i++)
        if (runs(i)) out[n++] = &tables[i];
    return n;
}

static const wn_kernels *choose(void)
{
    const char *name = getenv("WN_CPU");
    for (int i = 0; name && i < WN_KERNELS_MAX; i++)    /* leave for tiles is asked only where it is
                                                           meant */
        if (!strcmp(tables[i].name, name) && runs(i)) return &tables[i];
    for (int i = WN_KERNELS_MAX - 1; i > 0; i--)
        if (runs(i)) return &tables[i];
    return &tables[0];
}

const wn_kernels *wn_kernels_get(void)
{
    const wn_kernels *k = atomic_load_explicit(&current, memory_order_acquire);
    if (!k) {                                   /* threads that race here choose the same */
        k = choose();
        atomic_store_explicit(&current, k, memory_order_release);
    }
    return k;
}

void wn_kernels_force(const wn_kernels *k)
{
    atomic_store_explicit(&current, k ? k : choose(), memory_order_release);
}
