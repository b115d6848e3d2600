/* engine/limits.c - what this machine runs and can do at most, behind the public interface. */
#include "kernel/kernel.h"
#include "kernel/probe.h"
#include "base/os.h"
#include "winnow.h"

void wn_kernels_get_info(wn_kernels_info *out)
{
    const wn_kernels *k = wn_kernels_get();
    *out = (wn_kernels_info){ k->name, k->numerics };
}

wn_status wn_limits_measure(wn_limits *out, int n_threads, wn_err *err)
{
    wn_threads *team;
    wn_status st = wn_threads_open(&team, n_threads ? n_threads : wn_os_n_cpus(), err);
    *out = (wn_limits){ 0 };
    if (st) return st;
    out->read_bytes_per_s = wn_probe_read(team);
    out->int8_ops_per_s = wn_probe_int8(team);
    out->int8_tile_ops_per_s = wn_probe_int8_tiles(team);
    out->f32_ops_per_s = wn_probe_f32(team);
    out->bf16_ops_per_s = wn_probe_bf16(team);
    wn_threads_close(team);
    if (!(out->read_bytes_per_s > 0))
        return wn_fail(err, WN_ENOMEM, "limits: no memory to read (512 MiB are needed)");
    return WN_OK;
}
