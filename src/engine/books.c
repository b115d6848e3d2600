/* engine/books.c - where lanes in calibrated formats get their books.
 *
 * A calibrated format as it is listed has no book. When lanes are bound to formats, each side of a
 * lane gets the engine's copy of it for that lane, with the book of the model's calibration and the
 * angles of the lane's rotation. The file is looked for when a format first needs it and not
 * before: to tell whose it is takes the model's fingerprint, which reads the whole model. One
 * engine reads it once and keeps it: what was encoded by a book is read by that book.
 *
 * Memory counts under the ceiling: with the engine's tables when it is opened for such a format,
 * and out of the slack when a sequence is the first to ask.
 */
#include "engine/engine.h"
#include "base/alloc.h"
#include "page/book.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ROPES = 2 };                     /* of one model in one context: the main one (or
                                           longrope's), and local layers' */

struct wn_engine_books {
    wn_calibration *own;                /* NULL: lent */
    const wn_calibration *c;
    const wn_rope *ropes[ROPES];        /* that turns were made of */
    wn_turn turns[ROPES]; int n_turns;
    wn_book *books;                     /* (n_books, n_lanes, 2): K, V */
    wn_format *formats;                 /* likewise */
    char *read;                         /* what books read by, one after the other */
    size_t bytes;
};

static void books_close(wn_engine_books *b)
{
    if (!b) return;
    for (int i = 0; i < b->n_turns; i++) wn_turn_release(&b->turns[i]);
    wn_calibration_close(b->own);
    wn_free(b->books);
    wn_free(b->formats);
    wn_free(b->read);
    wn_free(b);
}

void wn_engine_release_books(wn_engine *e) { books_close(e->books); }
size_t wn_engine_books_bytes(const wn_engine *e) { return e->books ? e->books->bytes : 0; }
void wn_engine_lend_calibration(wn_engine *e, const wn_calibration *c) { e->lent_calibration = c; }

void wn_engine_calibration_path(const wn_model *m, char *buf, size_t n)
{
    snprintf(buf, n, "%s.calibration", wn_gguf_path(m->file));
}

/* ---- the file --------------------------------------------------------------------------- */

static const char *tail_of(const char *path)
{
    return strlen(path) > 120 ? path + strlen(path) - 120 : path;
}

void wn_engine_lane_dims(const wn_model *m, wn_lane_dims *out)
{
    for (int l = 0; l < m->map.n_lanes; l++)
        out[l] = (wn_lane_dims){ m->map.lanes[l].k_dim, m->map.lanes[l].v_dim };
}

static wn_status read_file(wn_calibration **out, const wn_model *m, const char *path,
                           wn_threads *team, const wn_format *format, wn_err *err)
{
    char beside[4096];
    uint8_t fp[16];
    *out = NULL;
    if (!path) {
        wn_engine_calibration_path(m, beside, sizeof beside);
        path = beside;
        if (access(path, F_OK))
            return wn_fail(err, WN_EIO,
                           "cache format %s goes by a calibration of the model, and there is no "
                           "%s: run `winnow "
                           "calibrate %s --text FILE`, or name one (--calibration)",
                           format->name, tail_of(path), tail_of(wn_gguf_path(m->file)));
    }
    wn_lane_dims *dims = WN_NEW_ARRAY(wn_lane_dims, m->map.n_lanes);
    if (!dims) return wn_fail(err, WN_ENOMEM, "calibration: out of memory");
    wn_engine_lane_dims(m, dims);
    wn_status st = wn_calibration_read(out, path, err);
    if (!st) {
        wn_model_fingerprint(m, team, fp);
        if ((st = wn_calibration_fits(*out, fp, dims, m->map.n_lanes, err))) {
            wn_calibration_close(*out);
            *out = NULL;
            wn_fail_prefix(err, st, "%s", tail_of(path));
        }
    }
    wn_free(dims);
    return st;
}

wn_status wn_engine_read_calibration(wn_calibration **out, const wn_model *m, const char *path,
                                     const wn_format *format, wn_err *err)
{
    return read_file(out, m, path, NULL, format, err);
}

/* ---- copies for lanes ---------------------------------------------------------------------- */

/* The turn of a layer's keys; NULL: they are not turned. */
static wn_status turn_of(wn_engine *e, wn_engine_books *b, int layer, const wn_turn **out,
                         wn_err *err)
{
    const wn_rope *r = wn_model_rope(e->m, layer, e->n_ctx);
    int far = 2 * e->n_ctx + WN_PROBE_BEYOND;   /* probes go that far */
    *out = NULL;
    if (!r || !r->n_dims) return WN_OK;
    int i = 0;
    while (i < b->n_turns && b->ropes[i] != r) i++;
    if (i == b->n_turns) {
        WN_ASSERT(i < ROPES);
        wn_status st = wn_turn_init(&b->turns[i], r->n_dims, r->neox, r->rate, far, err);
        if (st) return st;
        b->ropes[b->n_turns++] = r;
        b->bytes += wn_turn_bytes(r->n_dims, far);
    }
    *out = &b->turns[i];
    return WN_OK;
}

static size_t place_of(const wn_engine_books *b, const wn_calibration_books *f, int lane, bool of_v)
{
    return ((size_t)(f - b->c->books) * (size_t)b->c->n_lanes + (size_t)lane) * 2 + of_v;
}

static int dim_of(const wn_engine_books *b, int lane, bool of_v)
{
    return of_v ? b->c->dims[lane].v : b->c->dims[lane].k;
}

static size_t read_bytes(const wn_engine_books *b)
{
    size_t n = 0;
    for (int i = 0; i < b->c->n_books; i++)
        for (int l = 0; l < b->c->n_lanes; l++)
            for (int v = 0; v < 2; v++)
                n += b->c->books[i].format->calibrated->read_bytes(dim_of(b, l, v), v);
    return n;
}

static wn_status make_copies(wn_engine *e, wn_engine_books *b, wn_err *err)
{
    size_t n = (size_t)b->c->n_books * (size_t)b->c->n_lanes * 2, read = read_bytes(b);
    b->books = WN_NEW_ARRAY(wn_book, n);
    b->formats = WN_NEW_ARRAY(wn_format, n);
    b->read = wn_alloc_aligned(read);
    if (!b->books || !b->formats || !b->read)
        return wn_fail(err, WN_ENOMEM, "calibration: out of memory for %zu MiB", read >> 20);
    b->bytes += b->c->bytes + n * (sizeof(wn_book) + sizeof(wn_format)) + read;
    char *to = b->read;
    for (int i = 0; i < b->c->n_books; i++)
        for (int l = 0; l < b->c->n_lanes; l++)
            for (int v = 0; v < 2; v++) {
                const wn_calibration_books *f = &b->c->books[i];
                size_t at = place_of(b, f, l, v);
                b->books[at] = (wn_book){ .x = wn_calibration_numbers(b->c, f, l, v), .of_v = v };
                wn_status st = v ? WN_OK
                                 : turn_of(e, b, e->m->map.lanes[l].layer, &b->books[at].turn, err);
                if (st) return st;
                wn_book_prepare(&b->books[at], f->format, to, dim_of(b, l, v));
                to += f->format->calibrated->read_bytes(dim_of(b, l, v), v);
                b->formats[at] = *f->format;
                b->formats[at].book = &b->books[at];
            }
    return WN_OK;
}

static wn_status find_books(wn_engine *e, const wn_format *format, wn_err *err)
{
    wn_engine_books *b = WN_NEW(wn_engine_books);
    wn_status st = WN_OK;
    if (!b) return wn_fail(err, WN_ENOMEM, "calibration: out of memory");
    if (!e->lent_calibration)
        st = read_file(&b->own, e->m, e->calibration_path, e->team, format, err);
    b->c = e->lent_calibration ? e->lent_calibration : b->own;
    if (!st) st = make_copies(e, b, err);
    /* the engine is open: what it takes is settled */
    if (!st && e->pool && b->bytes > wn_engine_slack(e))
        st = wn_fail(err, WN_ELIMIT,
                     "the calibration takes %zu MiB, %zu MiB are left of %zu MiB (--mem): open the "
                     "engine for a "
                     "calibrated format, or raise --mem",
                     b->bytes >> 20, wn_engine_slack(e) >> 20, e->mem >> 20);
    if (st) {
        books_close(b);
        return st;
    }
    if (e->pool) e->tables_bytes += b->bytes;
    e->books = b;
    return WN_OK;
}

static wn_status bind(wn_engine *e, const wn_format **f, int lane, bool of_v, wn_err *err)
{
    wn_status st;
    if (!*f || !(*f)->calibrated || (*f)->book) return WN_OK;
    if (!e->books && (st = find_books(e, *f, err))) return st;
    const wn_calibration_books *b = wn_calibration_find(e->books->c, *f);
    if (!b)
        return wn_fail(
            err, WN_EINVAL,
            "the calibration of the model has no books for %s: run `winnow calibrate` again, with "
            "--formats %s among them",
            (*f)->name, (*f)->name);
    *f = &e->books->formats[place_of(e->books, b, lane, of_v)];
    return WN_OK;
}

wn_status wn_engine_bind_books(wn_engine *e, wn_lane_formats *lanes, wn_err *err)
{
    wn_status st = WN_OK;
    for (int l = 0; l < e->m->map.n_lanes && !st; l++)
        if (!(st = bind(e, &lanes[l].k, l, false, err)) &&
            !(st = bind(e, &lanes[l].v, l, true, err)) &&
            !(st = bind(e, &lanes[l].low_k, l, false, err)))
            st = bind(e, &lanes[l].low_v, l, true, err);
    return st;
}

const char *wn_seq_calibration(const wn_seq *s)
{
    const wn_lane_formats *f = s->kv_opts.formats;
    for (int l = 0; f && l < s->e->m->map.n_lanes; l++)
        if (f[l].k->book || f[l].v->book || (f[l].low_k && (f[l].low_k->book || f[l].low_v->book)))
            return s->e->books->c->id;
    return NULL;
}
