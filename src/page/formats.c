/* page/formats.c - the list of page formats. A new format is a line here, and a file or a line of
 * one. */
#include "kernel/attn.h"
#include "page/format.h"

#include <stdio.h>
#include <string.h>

static const wn_format *const formats[] = {
    &wn_format_f16,
    &wn_format_bf16,
    &wn_format_f32,                             /* the raw ones come first */
    &wn_format_q8,
    &wn_format_q6,
    &wn_format_q5,
    &wn_format_q4,
    &wn_format_q3,
    &wn_format_q2,
    &wn_format_q44,
    &wn_format_q4h,
    &wn_format_kivi4,
    &wn_format_kivi2,
    &wn_format_bfp4,
    &wn_format_cq4,
    &wn_format_cq2,
    &wn_format_cq1,
    &wn_format_q8_0,
    &wn_format_q5_1,
    &wn_format_q5_0,
    &wn_format_q4_1,
    &wn_format_q4_0,
    &wn_format_q8_0r,
    &wn_format_q5_1r,
    &wn_format_q5_0r,
    &wn_format_q4_1r,
    &wn_format_q4_0r,
    &wn_format_q4_s1,
    &wn_format_q4_r2,
    &wn_format_q4_s1r2,
    &wn_format_q3_s1,
    &wn_format_q3_r2,
    &wn_format_q3_s1r2,
    &wn_format_q2_s1,
    &wn_format_q2_r2,
    &wn_format_q2_s1r2,
    &wn_format_kivi4_s1,
    &wn_format_kivi4_r2,
    &wn_format_kivi4_s1r2,
    &wn_format_kivi2_s1,
    &wn_format_kivi2_r2,
    &wn_format_kivi2_s1r2,
};

const wn_format *wn_format_at(int i) { return i >= 0 && i < (int)WN_COUNT(formats) ? formats[i] : NULL; }

void wn_format_copy_k(const wn_format *f, void *dst, int to, const void *src, int from, int n, int P, int head_dim)
{
    if (f->copies_k) f->copies_k(dst, to, src, from, n, P, head_dim);
    else
        for (int i = 0; i < n; i++) f->copy_k(dst, to + i, src, from + i, P, head_dim);
}

void wn_format_copy_v(const wn_format *f, void *dst, int to, const void *src, int from, int n, int P, int head_dim)
{
    if (f->copies_v) f->copies_v(dst, to, src, from, n, P, head_dim);
    else
        for (int i = 0; i < n; i++) f->copy_v(dst, to + i, src, from + i, P, head_dim);
}

const wn_format *wn_format_find(const char *name)
{
    for (size_t i = 0; i < WN_COUNT(formats); i++)
        if (!strcmp(formats[i]->name, name)) return formats[i];
    return NULL;
}

size_t wn_format_tmp_bytes(int P, int head_dim)
{
    return WN_MAX(wn_attn_tmp_bytes(P, head_dim), wn_attn_tmp_bytes(head_dim, P));
}

/* Names with options are too many for one sentence: it says which there are. */
wn_status wn_format_unknown(const char *name, wn_err *err)
{
    char known[300] = "";
    for (int i = 0; wn_format_at(i); i++)
        if (!strchr(wn_format_at(i)->name, '-'))
            snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", wn_format_at(i)->name);
    return wn_fail(err, WN_EINVAL, "cache type \"%.20s\" is unknown: there are %s; q4, q3, q2, kivi4 and kivi2 also with -s1, "
                   "-r2 or -s1r2", name, known);
}
