/* kernel.c - which table this CPU runs (stand-in until the matrix kernels come with the
 * real one: same names, all parts of the table). */
#include "kernel/kernel.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

extern const wn_attn_ops wn_attn_ops_scalar, wn_attn_ops_avx2, wn_attn_ops_avx512;
static const wn_kernels tables[3] = {
    { "scalar", NULL, NULL, &wn_attn_ops_scalar },
    { "avx2", NULL, NULL, &wn_attn_ops_avx2 },
    { "avx512", NULL, NULL, &wn_attn_ops_avx512 },
};
static _Atomic(const wn_kernels *) current;

static bool runs(int i)
{
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return i == 0 || (i == 1 && avx2) || (avx2 && __builtin_cpu_supports("avx512vnni"));
}

int wn_kernels_all(const wn_kernels *out[3])
{
    int n = 0;
    for (int i = 0; i < 3; i++)
        if (runs(i)) out[n++] = &tables[i];
    return n;
}

static const wn_kernels *choose(void)
{
    const wn_kernels *all[3];
    int n = wn_kernels_all(all);
    const char *name = getenv("WN_CPU");
    for (int i = 0; name && i < n; i++)
        if (!strcmp(all[i]->name, name)) return all[i];
    return all[n - 1];
}

const wn_kernels *wn_kernels_get(void)
{
    const wn_kernels *k = atomic_load_explicit(&current, memory_order_acquire);
    if (!k) atomic_store_explicit(&current, k = choose(), memory_order_release);
    return k;
}

void wn_kernels_force(const wn_kernels *k)
{
    atomic_store_explicit(&current, k ? k : choose(), memory_order_release);
}
