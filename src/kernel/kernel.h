/* kernel/kernel.h - leaf loops over plain arrays: one table per instruction set.
 *
 * The scalar table is the definition, written to be read; avx2, avx512 and amx are checked
 * against it in tests/parity/. One set is chosen once, at start; WN_CPU=scalar|avx2|avx512|amx
 * overrides the choice.
 * Contract of every entry: any n >= 0, natural alignment is enough, dst does not overlap
 * a source unless its comment says so.
 */
#ifndef WN_KERNEL_KERNEL_H
#define WN_KERNEL_KERNEL_H

#include "base/err.h"

typedef struct wn_vec_ops wn_vec_ops;           /* kernel/vec.h: norms, activations, rope, exp */
typedef struct wn_matmul_ops wn_matmul_ops;     /* kernel/matmul_ops.h: tiles of weights times
                                                   activations */
typedef struct wn_attn_ops wn_attn_ops;         /* kernel/attn.h: score and mix over raw pages */
typedef struct wn_codes_ops wn_codes_ops;       /* kernel/codes.h: rows of encoded pages */
typedef struct wn_planes_ops wn_planes_ops;     /* kernel/codes.h: products over them */
typedef struct wn_lookup_ops wn_lookup_ops;     /* kernel/lookup.h: codes that name rows of a
                                                   table */

/* Bytes that will be read soon, fetched while something else is worked on. */
typedef struct { const char *at, *end; } wn_ahead;

static inline size_t wn_ahead_left(const wn_ahead *a) { return (size_t)(a->end - a->at); }

/* Several such ranges, fetched in step with the work: wherever that takes about five nanoseconds it
 * asks once, and `rate` bytes more are on their way. */
typedef struct {
    const char *at, *end;
    const wn_ahead *more, *last;                /* ranges behind the one at hand */
    size_t rate;                                /* at most 128 */
} wn_fetcher;

static inline void wn_fetch(wn_fetcher *f)
{
    __builtin_prefetch(f->at, 0, 2);
    if (f->rate > 64) __builtin_prefetch(f->at + 64, 0, 2);
    f->at += f->rate;
    if (f->at < f->end) return;
    if (f->more == f->last) {
        f->at = f->end;                         /* which may be asked for again and again */
        f->rate = 0;
        return;
    }
    f->at = f->more->at;
    f->end = f->more++->end;
}

static inline void wn_fetch_times(wn_fetcher *f, int n)
{
    while (n-- > 0) wn_fetch(f);
}

typedef struct {
    const char *name;                           /* "scalar", "avx2", "avx512", "amx" */
    const char *numerics;                       /* half of the numerics id: amx gives avx512's bits
                                                   by construction */
    const wn_vec_ops *vec;
    const wn_matmul_ops *matmul;
    const wn_attn_ops *attn;
    const wn_codes_ops *codes;
    const wn_planes_ops *planes;
    const wn_lookup_ops *lookup;
} wn_kernels;

/* The best table this CPU runs, or what WN_CPU names. The same pointer at every call. */
const wn_kernels *wn_kernels_get(void);
/* Tables this CPU can run, scalar first; for parity tests. Returns how many. */
enum { WN_KERNELS_MAX = 4 };
int wn_kernels_all(const wn_kernels *out[WN_KERNELS_MAX]);
/* Tests: makes a table the current one (NULL: back to the choice at start). */
void wn_kernels_force(const wn_kernels *k);

/* "order version": raised when the order of any sum changes. With the table's name it is
 * the numerics id. */
#define WN_ORDER_VERSION 2

#endif
