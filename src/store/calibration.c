/* store/calibration.c - books in memory, and the file: see calibration.h. */
#include "store/calibration.h"

#include "base/alloc.h"
#include "kernel/elem.h"
#include "page/book.h"

#include <stdio.h>
#include <string.h>

enum { HEAD = 40, NAME = 16, MAX_LANES = 1 << 16 };

/* ---- in memory ------------------------------------------------------------------------ */

wn_status wn_calibration_new(wn_calibration **out, int n_lanes, wn_err *err)
{
    wn_calibration *c = *out = WN_NEW(wn_calibration);
    if (!c || !(c->dims = WN_NEW_ARRAY(wn_lane_dims, n_lanes))) {
        wn_free(c);
        *out = NULL;
        return wn_fail(err, WN_ENOMEM, "calibration: out of memory");
    }
    c->n_lanes = n_lanes;
    c->bytes = sizeof *c + sizeof *c->dims * (size_t)n_lanes;
    return WN_OK;
}

void wn_calibration_close(wn_calibration *c)
{
    if (!c) return;
    for (int i = 0; i < c->n_books; i++) wn_free(c->books[i].x);
    wn_free(c->dims);
    wn_free(c);
}

/* Numbers of the lanes before this one. */
static size_t numbers_before(const wn_calibration *c, const wn_format *f, int lane)
{
    size_t n = 0;
    for (int l = 0; l < lane; l++)
        n += f->calibrated->numbers(c->dims[l].k, false) +
             f->calibrated->numbers(c->dims[l].v, true);
    return n;
}

wn_status wn_calibration_add(wn_calibration *c, const wn_format *f, wn_err *err)
{
    size_t n = numbers_before(c, f, c->n_lanes);
    WN_ASSERT(f->calibrated && c->n_books < WN_CALIBRATED_MAX);
    wn_calibration_books *b = &c->books[c->n_books];
    *b = (wn_calibration_books){ .format = f, .x = WN_NEW_ARRAY(float, n) };
    if (!b->x)
        return wn_fail(err, WN_ENOMEM, "calibration: out of memory for %zu MiB of %s",
                       (n * sizeof(float)) >> 20, f->name);
    c->bytes += n * sizeof(float);
    c->n_books++;
    return WN_OK;
}

const wn_calibration_books *wn_calibration_find(const wn_calibration *c, const wn_format *f)
{
    for (int i = 0; i < c->n_books; i++)
        if (c->books[i].format->calibrated == f->calibrated) return &c->books[i];
    return NULL;
}

float *wn_calibration_numbers(const wn_calibration *c, const wn_calibration_books *b, int lane,
                              bool of_v)
{
    size_t at = numbers_before(c, b->format, lane);
    return b->x + at + (of_v ? b->format->calibrated->numbers(c->dims[lane].k, false) : 0);
}

static void hex_of(const uint8_t *from, char to[WN_CALIBRATION_ID])
{
    for (int i = 0; i < 16; i++) snprintf(to + 2 * i, 3, "%02x", from[i]);
}

wn_status wn_calibration_fits(const wn_calibration *c, const uint8_t fingerprint[16],
                              const wn_lane_dims *dims, int n_lanes, wn_err *err)
{
    char a[WN_CALIBRATION_ID], b[WN_CALIBRATION_ID];
    if (memcmp(c->fingerprint, fingerprint, 16)) {
        hex_of(c->fingerprint, a);
        hex_of(fingerprint, b);
        return wn_fail(err, WN_EINVAL, "it is of another model (fingerprint %s; this one has %s)",
                       a, b);
    }
    if (c->n_lanes != n_lanes || memcmp(c->dims, dims, sizeof *dims * (size_t)n_lanes))
        return wn_fail(err, WN_EFORMAT,
                       "its %d lanes are not the model's %d, or have other channels", c->n_lanes,
                       n_lanes);
    return WN_OK;
}

/* ---- writing ---------------------------------------------------------------------------- */

static void put_le(uint8_t *p, uint32_t v, int n)
{
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}

static wn_status write_numbers(wn_record_writer *w, const float *x, size_t n, wn_err *err)
{
    uint8_t some[512];
    wn_status st = WN_OK;
    for (size_t at = 0; at < n && !st; at += sizeof some / 2) {
        size_t k = WN_MIN(sizeof some / 2, n - at);
        for (size_t i = 0; i < k; i++) put_le(some + 2 * i, wn_elem_to_f16(x[at + i]), 2);
        st = wn_record_write(w, some, 2 * k, err);
    }
    return st;
}

wn_status wn_calibration_write(const wn_calibration *c, const char *path, wn_err *err)
{
    wn_record_id id = { 0 };
    wn_record_writer *w;
    uint8_t h[HEAD] = { 0 };
    memcpy(id.fingerprint, c->fingerprint, sizeof id.fingerprint);
    memcpy(id.numerics, c->numerics, sizeof id.numerics);
    wn_status st = wn_record_begin(&w, path, WN_RECORD_CALIBRATION, &id, err);
    if (st) return st;
    const uint32_t fields[] = { WN_CALIBRATION_VERSION, (uint32_t)c->n_lanes, (uint32_t)c->n_tokens,
                                (uint32_t)c->context };
    for (size_t i = 0; i < WN_COUNT(fields); i++) put_le(h + 4 * i, fields[i], 4);
    memcpy(h + 16, c->text, sizeof c->text);
    put_le(h + 32, (uint32_t)c->n_books, 4);
    st = wn_record_write(w, h, sizeof h, err);
    for (int l = 0; l < c->n_lanes && !st; l++) {
        uint8_t d[4];
        put_le(d, (uint32_t)(uint16_t)c->dims[l].k | (uint32_t)(uint16_t)c->dims[l].v << 16, 4);
        st = wn_record_write(w, d, sizeof d, err);
    }
    for (int i = 0; i < c->n_books && !st; i++) {
        char name[NAME] = { 0 };
        memcpy(name, c->books[i].format->name, strnlen(c->books[i].format->name, NAME - 1));
        if ((st = wn_record_write(w, name, sizeof name, err))) break;
        st = write_numbers(w, c->books[i].x, numbers_before(c, c->books[i].format, c->n_lanes),
                           err);
    }
    if (!st) return wn_record_commit(w, err);
    wn_record_abort(w);
    return st;
}

/* ---- reading ----------------------------------------------------------------------------- */

static uint32_t get_le(const uint8_t *p, int n)
{
    uint32_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint32_t)p[i] << 8 * i;
    return v;
}

static wn_status read_books(wn_calibration *c, wn_record *r, wn_err *err)
{
    char name[NAME + 1] = { 0 };
    wn_status st = wn_record_read(r, name, NAME, err);
    if (st) return st;
    const wn_format *f = wn_format_find(name);
    if (!f || !f->calibrated)
        return wn_fail(err, WN_EFORMAT,
                       "it has a book of \"%s\": this program knows no such calibrated format",
                       name);
    if (wn_calibration_find(c, f)) return wn_fail(err, WN_EFORMAT, "it has two books of %s", name);
    size_t n = numbers_before(c, f, c->n_lanes);
    if (n * 2 > r->n - r->at)           /* before that much is allocated */
        return wn_fail(err, WN_EFORMAT, "the books of %s have %zu numbers, %zu bytes are left",
                       name, n, r->n - r->at);
    if ((st = wn_calibration_add(c, f, err))) return st;
    float *x = c->books[c->n_books - 1].x;
    for (size_t i = 0; i < n; i++) {
        uint16_t h = (uint16_t)get_le(r->payload + r->at + 2 * i, 2);
        if ((h & 0x7c00) == 0x7c00)
            return wn_fail(err, WN_EFORMAT, "number %zu of the books of %s is not finite", i, name);
        x[i] = wn_elem_from_f16(h);
    }
    r->at += 2 * n;
    return WN_OK;
}

static wn_status read_all(wn_calibration **out, wn_record *r, wn_err *err)
{
    uint8_t h[HEAD], d[4];
    wn_status st = wn_record_read(r, h, sizeof h, err);
    if (st) return st;
    uint32_t version = get_le(h, 4), lanes = get_le(h + 4, 4), tokens = get_le(h + 8, 4),
             context = get_le(h + 12, 4);
    uint32_t formats = get_le(h + 32, 4);
    if (version != WN_CALIBRATION_VERSION)
        return wn_fail(err, WN_EUNSUPPORTED,
                       "a calibration of version %u, this program reads version %d", version,
                       WN_CALIBRATION_VERSION);
    if (!lanes || lanes > MAX_LANES || tokens > INT32_MAX || context > tokens ||
        formats > WN_CALIBRATED_MAX || get_le(h + 36, 4))
        return wn_fail(err, WN_EFORMAT, "%u lanes, %u tokens in texts of %u, %u formats", lanes,
                       tokens, context, formats);
    if ((st = wn_calibration_new(out, (int)lanes, err))) return st;
    wn_calibration *c = *out;
    c->n_tokens = (int)tokens;
    c->context = (int)context;
    memcpy(c->text, h + 16, sizeof c->text);
    memcpy(c->fingerprint, r->id.fingerprint, sizeof c->fingerprint);
    memcpy(c->numerics, r->id.numerics, sizeof c->numerics);
    for (int l = 0; l < c->n_lanes && !st; l++) {
        if ((st = wn_record_read(r, d, sizeof d, err))) break;
        c->dims[l] = (wn_lane_dims){ (int16_t)get_le(d, 2), (int16_t)get_le(d + 2, 2) };
        if (c->dims[l].k < 1 || c->dims[l].v < 1 || c->dims[l].k > WN_BOOK_DIM ||
            c->dims[l].v > WN_BOOK_DIM)
            st = wn_fail(err, WN_EFORMAT, "lane %d has %d and %d channels, expected 1 to %d", l,
                         c->dims[l].k, c->dims[l].v, WN_BOOK_DIM);
    }
    for (uint32_t i = 0; i < formats && !st; i++) st = read_books(c, r, err);
    if (!st && r->at != r->n)
        st = wn_fail(err, WN_EFORMAT, "%zu bytes are left over", r->n - r->at);
    hex_of(r->sum, c->id);
    return st;
}

static wn_status read_record(wn_calibration **out, wn_record *r, wn_err *err)
{
    wn_status st = read_all(out, r, err);
    wn_record_close(r);
    if (!st) return WN_OK;
    wn_calibration_close(*out);
    *out = NULL;
    return st;
}

wn_status wn_calibration_parse(wn_calibration **out, const void *data, size_t n, wn_err *err)
{
    wn_record r;
    *out = NULL;
    wn_status st = wn_record_open_memory(&r, data, n, WN_RECORD_CALIBRATION, err);
    return st ? st : read_record(out, &r, err);
}

wn_status wn_calibration_read(wn_calibration **out, const char *path, wn_err *err)
{
    wn_record r;
    *out = NULL;
    wn_status st = wn_record_open(&r, path, WN_RECORD_CALIBRATION, err);
    if (st) return st;
    return (st = read_record(out, &r, err)) ? wn_fail_prefix(err, st, "%.200s", path) : WN_OK;
}
