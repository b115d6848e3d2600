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
    &wn_format_nuq4,
    &wn_format_nuq3,
    &wn_format_nuq2,
    &wn_format_nuq4_s1,
    &wn_format_nuq3_s1,
    &wn_format_nuq2_s1,
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

const wn_format *wn_format_at(int i)
{
    return i >= 0 && i < (int)WN_COUNT(formats) ? formats[i] : NULL;
}

void wn_format_copy_k(const wn_format *f, void *dst, int to, const void *src, int from, int n,
                      int P, int head_dim)
{
    if (f->copies_k) f->copies_k(dst, to, src, from, n, P, head_dim);
    else
        for (int i = 0; i < n; i++) f->copy_k(dst, to + i, src, from + i, P, head_dim);
}

void wn_format_copy_v(const wn_format *f, void *dst, int to, const void *src, int from, int n,
                      int P, int head_dim)
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
            snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "",
                     wn_format_at(i)->name);
    return wn_fail(
        err, WN_EINVAL,
        "cache type \"%.20s\" is unknown: there are %s; q4, q3, q2, kivi4 and kivi2 also with -s1, "
        "-r2 or -s1r2, nuq4, nuq3 and nuq2 with -s1",
        name, known);
}

/* ---- several pages ---------------------------------------------------------------------- */

void wn_format_scores(const wn_format *f, const wn_page_score *s, const wn_page_part *parts, int n,
                      float *room)
{
    if (f->scores) {
        f->scores(s, parts, n);
        return;
    }
    wn_page_score page = *s;
    for (const wn_page_part *x = parts; x < parts + n; x++) {
        bool whole = x->n_entries == x->n;
        page.out = whole ? s->out + x->entry : room;
        page.out_stride = whole ? s->out_stride : WN_PAGE_SLOTS_MAX;
        page.frame = x->frame, page.first = x->first, page.n = x->n;
        page.ahead = x->ahead, page.place = x->place;
        f->score(&page);
        for (int i = 0; !whole && i < s->n_q; i++)
            wn_page_take(s->out + (size_t)i * s->out_stride + x->entry,
                         room + i * WN_PAGE_SLOTS_MAX, x);
    }
}

void wn_format_mixes(const wn_format *f, const wn_page_mix *m, const wn_page_part *parts, int n,
                     float *room)
{
    if (f->mixes) {
        f->mixes(m, parts, n);
        return;
    }
    wn_page_mix page = *m;
    for (const wn_page_part *x = parts; x < parts + n; x++) {
        bool whole = x->n_entries == x->n;
        page.w = whole ? m->w + x->entry : room;
        page.w_stride = whole ? m->w_stride : WN_PAGE_SLOTS_MAX;
        page.frame = x->frame, page.first = x->first, page.n = x->n;
        page.ahead = x->ahead;
        if (!whole) memset(room, 0, sizeof *room * WN_PAGE_SLOTS_MAX * (size_t)m->n_q);
        for (int i = 0; !whole && i < m->n_q; i++)
            wn_page_give(room + i * WN_PAGE_SLOTS_MAX, m->w + (size_t)i * m->w_stride + x->entry,
                         x);
        f->mix(&page);
    }
}
