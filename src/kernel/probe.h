/* kernel/probe.h - what this machine can do at most, measured now.
 *
 * A share of a limit means something only when the limit was measured in the same minute:
 * read bandwidth of a virtual machine drifts by a factor of two. Each probe runs for about
 * 0.2 s on all threads of the team with the current kernel table's instructions, and
 * returns the median of five runs. Multiplications and additions count as two operations.
 */
#ifndef WN_KERNEL_PROBE_H
#define WN_KERNEL_PROBE_H

#include "base/threads.h"

/* Bytes per second of plain loads over 512 MiB (more than any cache); 0: out of memory. */
double wn_probe_read(wn_threads *team);
/* int8 products into int32: vpdpbusd; maddubs + madd + add on avx2. */
double wn_probe_int8(wn_threads *team);
/* The same on the amx table's tiles; 0 where the table is another. */
double wn_probe_int8_tiles(wn_threads *team);
/* float fused multiply-adds. */
double wn_probe_f32(wn_threads *team);
/* bf16 dot products; 0 where the CPU or the table has none. */
double wn_probe_bf16(wn_threads *team);

/* For probe.c alone: n rounds of a loop, returning something that depends on it so that
 * it is not optimised away; ops per round in *ops. */
typedef float wn_probe_loop(long n, double *ops);
wn_probe_loop wn_probe_int8_scalar, wn_probe_int8_avx2, wn_probe_int8_avx512, wn_probe_int8_amx;
wn_probe_loop wn_probe_f32_scalar, wn_probe_f32_avx2, wn_probe_f32_avx512;
wn_probe_loop wn_probe_bf16_avx512;
/* Reads n bytes (a multiple of 1024), 64-byte aligned. */
typedef uint64_t wn_probe_reader(const void *p, size_t n);
wn_probe_reader wn_probe_read_scalar, wn_probe_read_avx2, wn_probe_read_avx512;

#endif
