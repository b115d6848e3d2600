/* engine/session.c - a sequence as a file, exactly.
 *
 * The payload of a session record (store/record.h has the header and the checksum):
 *
 *     u32          slots per page, rows of the ring, n_lanes, decided_at
 *     u32          bytes of the policy's canonical text, then the text; where the policy goes by a
 *                  profile of the model, ";profile=" and its checksum follow in it; where cache formats go
 *                  by a calibration of it, ";calibration=" and its checksum
 *     u32          n marks, then n int32 positions
 *     u32          n named stretches, then n times u32: 0 named or 1 system prompt, 2 in spans
 *                  or 3 where they begin; from, to
 *     u32          n tokens, then n int32 token ids (all computed)
 *     stream       the cache (cache/kv_save.c)
 *     f32          policies with statistics of all queries: of each lane, of each statistic, the
 *                  numbers of its live slots by position; window lanes have none
 *     u32          such policies: the position of the last decision whose statistics follow, or 0
 *     f32          as above, of the slots that were live right after it
 *
 * Everything that must agree is compared before the cache is touched, and each difference
 * has a sentence of its own, so that a user learns which model or option the file wants.
 */
#include "engine/engine.h"
#include "base/alloc.h"
#include "store/record.h"

#include <stdio.h>
#include <string.h>

static wn_status sink_write(void *ctx, const void *data, size_t n, wn_err *err)
{
    return wn_record_write(ctx, data, n, err);
}

static wn_status source_read(void *ctx, void *data, size_t n, wn_err *err)
{
    return wn_record_read(ctx, data, n, err);
}

static wn_status put_u32(wn_record_writer *w, uint32_t v, wn_err *err)
{
    uint8_t b[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };
    return wn_record_write(w, b, 4, err);
}

static wn_status get_u32(wn_record *r, uint32_t *v, wn_err *err)
{
    uint8_t b[4];
    wn_status st = wn_record_read(r, b, 4, err);
    if (!st)
        *v = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return st;
}

static void make_id(const wn_engine *e, wn_record_id *id)
{
    memset(id, 0, sizeof *id);
    wn_model_fingerprint(e->m, e->team, id->fingerprint);
    snprintf(id->numerics, sizeof id->numerics, "%s", e->numerics);
}

static const char PROFILE[] = ";profile=";              /* no policy's text has a semicolon */
static const char CALIBRATION[] = ";calibration=";
enum {
    DECIDES_BYTES = WN_SPEC_BYTES + (int)sizeof PROFILE + WN_PROFILE_ID + (int)sizeof CALIBRATION +
                    WN_CALIBRATION_ID
};

/* What decides here, spelled out; a test's decider by its schedule. Nothing is said of a
 * policy that never decides (its cache formats are compared with the cache). */
static void what_decides(const wn_seq *s, char out[DECIDES_BYTES])
{
    const char *text = !s->policy                     ? (s->every ? "decider" : "")
                       : wn_policy_decides(s->policy) ? s->policy->text
                                                      : "";
    const char *by = wn_seq_calibration(s);
    snprintf(out, DECIDES_BYTES, "%s%s%s%s%s", text, s->profile ? PROFILE : "",
             s->profile ? s->profile->id : "", by ? CALIBRATION : "", by ? by : "");
}

/* Cuts what stands behind the word off the text; NULL: it is not there. */
static char *cut_off(char *text, const char *word)
{
    char *at = strstr(text, word);
    if (at) *at = '\0';
    return at;
}

static wn_status compare_deciders(char *saved, char *here, wn_err *err)
{
    char *a, *b;
    if (!strcmp(saved, here)) return WN_OK;
    a = cut_off(saved, CALIBRATION);
    b = cut_off(here, CALIBRATION);
    if (a && b && strcmp(a + sizeof CALIBRATION - 1, b + sizeof CALIBRATION - 1))
        return wn_fail(err, WN_EINVAL,
                       "its pages are encoded by another calibration of the model (checksum %.32s, "
                       "this run has %.32s)",
                       a + sizeof CALIBRATION - 1, b + sizeof CALIBRATION - 1);
    if (!a != !b)
        return wn_fail(err, WN_EINVAL, "saved with%s a calibrated cache format, this run uses %s",
                       a ? "" : "out", b ? "one" : "none");
    a = cut_off(saved, PROFILE);
    b = cut_off(here, PROFILE);
    if (a && b && !strcmp(saved, here))
        return wn_fail(err, WN_EINVAL,
                       "saved with another profile of the model (checksum %s, this run has %s)",
                       a + sizeof PROFILE - 1, b + sizeof PROFILE - 1);
    return wn_fail(err, WN_EINVAL, "saved with the cache policy %.150s, this run uses %.150s",
                   *saved ? saved : "none", *here ? here : "none");
}

/* Marks among the tokens that are computed: others belong to tokens that are not saved. */
static int n_marks_up_to(const wn_seq *s, int n)
{
    int m = s->n_marks;
    while (m && s->marks[m - 1] > n) m--;
    return m;
}

static wn_status write_ranges(const wn_seq *s, wn_record_writer *w, int n, wn_err *err)
{
    uint32_t count = 0;
    wn_status st = WN_OK;
    for (int pass = 0; pass < 2 && !st; pass++) {       /* first their number */
        int kind = 0;
        if (pass) st = put_u32(w, count, err);
        for (int from, to = 0; !st && wn_seq_next_range(s, n, &kind, &from, &to);) {
            if (!pass) count++;
            else if (!(st = put_u32(w, (uint32_t)kind, err)) &&
                     !(st = put_u32(w, (uint32_t)from, err)))
                st = put_u32(w, (uint32_t)to, err);
        }
    }
    return st;
}

static wn_status write_ledger(const wn_seq *s, wn_record_writer *w, wn_err *err)
{
    const wn_ledger *g = &s->ledger;
    wn_status st = WN_OK;
    for (int l = 0; l < g->n_lanes; l++)
        for (int i = 0; i < g->n_stats && g->lanes[l].room && !st; i++)
            st = wn_record_write(w, wn_ledger_row(g, l, i),
                                 sizeof *g->x * wn_kv_live(s->kv, l), err);
    if (!st) st = put_u32(w, (uint32_t)s->noted_at, err);
    return st || !s->noted_at ? st
                              : wn_record_write(w, g->noted, wn_ledger_noted_bytes(g), err);
}

wn_status wn_seq_save(const wn_seq *s, const char *path, wn_err *err)
{
    wn_record_id id;
    wn_record_writer *w;
    uint32_t n = (uint32_t)wn_kv_n(s->kv);
    if ((int)n < s->n_known)
        return wn_fail(err, WN_EFULL,
                       "session %s: the sequence is parked, %u of its %d tokens are in the cache",
                       path, n, s->n_known);
    make_id(s->e, &id);
    wn_status st = wn_record_begin(&w, path, WN_RECORD_SESSION, &id, err);
    if (st) return st;
    char policy[DECIDES_BYTES];
    what_decides(s, policy);
    int n_marks = n_marks_up_to(s, (int)n);
    const uint32_t fields[] = { (uint32_t)wn_kv_page_slots(s->kv), (uint32_t)s->opts.ring_rows,
                                (uint32_t)s->e->m->map.n_lanes, (uint32_t)s->decided_at,
                                (uint32_t)strlen(policy) };
    for (size_t i = 0; i < WN_COUNT(fields); i++)
        if ((st = put_u32(w, fields[i], err))) goto fail;
    if ((st = wn_record_write(w, policy, strlen(policy), err)) ||
        (st = put_u32(w, (uint32_t)n_marks, err)))
        goto fail;
    for (int i = 0; i < n_marks; i++)
        if ((st = put_u32(w, (uint32_t)s->marks[i], err))) goto fail;
    if ((st = write_ranges(s, w, (int)n, err)) || (st = put_u32(w, n, err))) goto fail;
    for (uint32_t i = 0; i < n; i++)
        if ((st = put_u32(w, (uint32_t)s->tokens[i], err))) goto fail;
    if ((st = wn_kv_save(s->kv, (wn_sink){ sink_write, w }, err))) goto fail;
    if (s->probed.x &&
        ((st = put_u32(w, (uint32_t)s->next, err)) || (st = put_u32(w, (uint32_t)s->next_at, err))))
        goto fail;
    if (s->ledger.n_stats && (st = write_ledger(s, w, err))) goto fail;
    return wn_record_commit(w, err);
fail:
    wn_record_abort(w);
    return st;
}

static wn_status read_ranges(wn_seq *s, wn_record *r, wn_err *err)
{
    uint32_t n, f[3], end[2] = { 0, 0 };        /* kind and position: they ascend */
    wn_status st = get_u32(r, &n, err);
    for (uint32_t i = 0; i < n && !st; i++) {
        for (int k = 0; k < 3 && !st; k++) st = get_u32(r, &f[k], err);
        if (st) return st;
        if (f[0] >= WN_PLANES || f[0] < end[0] || (f[0] == end[0] && f[1] < end[1]) ||
            f[1] >= f[2] || f[2] > (uint32_t)s->opts.max_tokens)
            return wn_fail(err, WN_EFORMAT, "named stretch %u: kind %u, from %u to %u", i, f[0],
                           f[1], f[2]);
        end[0] = f[0];
        end[1] = f[2];
        st = wn_seq_add_range(s, (int)f[1], (int)f[2], (int)f[0], err);
    }
    return st ? st : wn_seq_hold_ranges(s, err);
}

/* Compares what the file says with what this sequence is; fills decided_at. */
static wn_status check_fields(const wn_seq *s, wn_record *r, uint32_t *decided_at, wn_err *err)
{
    static const char *const what[3] = { "slots per page", "ring rows", "lanes" };
    const uint32_t want[3] = { (uint32_t)wn_kv_page_slots(s->kv), (uint32_t)s->opts.ring_rows,
                               (uint32_t)s->e->m->map.n_lanes };
    char saved[DECIDES_BYTES], here[DECIDES_BYTES];
    uint32_t got[5];
    wn_status st;
    for (int i = 0; i < 5; i++)
        if ((st = get_u32(r, &got[i], err))) return st;
    for (int i = 0; i < 3; i++)
        if (got[i] != want[i])
            return wn_fail(err, WN_EINVAL, "saved with %u %s, this run uses %u", got[i], what[i],
                           want[i]);
    *decided_at = got[3];
    if (got[4] >= sizeof saved) return wn_fail(err, WN_EFORMAT, "a policy of %u bytes", got[4]);
    if ((st = wn_record_read(r, saved, got[4], err))) return st;
    saved[got[4]] = '\0';
    what_decides(s, here);
    return compare_deciders(saved, here, err);
}

static wn_status read_marks(wn_seq *s, wn_record *r, wn_err *err)
{
    uint32_t n, pos;
    wn_status st = get_u32(r, &n, err);
    if (st) return st;
    if (n > (uint32_t)s->opts.max_tokens) return wn_fail(err, WN_EFORMAT, "%u marks", n);
    int32_t *marks = WN_NEW_ARRAY(int32_t, n + 1);
    if (!marks) return wn_fail(err, WN_ENOMEM, "marks: out of memory");
    wn_free(s->marks);
    s->marks = marks;
    s->n_marks = 0;
    s->cap_marks = (int)n + 1;
    for (uint32_t i = 0; i < n; i++) {
        if ((st = get_u32(r, &pos, err))) return st;
        if (pos == 0 || pos > (uint32_t)s->opts.max_tokens || (i && pos <= (uint32_t)marks[i - 1]))
            return wn_fail(err, WN_EFORMAT, "mark %u at position %u", i, pos);
        marks[s->n_marks++] = (int32_t)pos;
    }
    return WN_OK;
}

static wn_status read_tokens(wn_seq *s, wn_record *r, uint32_t *n, wn_err *err)
{
    wn_status st = get_u32(r, n, err);
    if (st) return st;
    if (*n > (uint32_t)s->opts.max_tokens)
        return wn_fail(err, WN_ELIMIT, "the session holds %u tokens, this sequence has room for %d",
                       *n, s->opts.max_tokens);
    for (uint32_t i = 0; i < *n; i++) {
        uint32_t id;
        if ((st = get_u32(r, &id, err))) return st;
        if (id >= (uint32_t)s->e->m->hp.n_vocab)
            return wn_fail(err, WN_EFORMAT, "token %u at position %u: the vocabulary has %d", id, i,
                           s->e->m->hp.n_vocab);
        s->tokens[i] = (int32_t)id;
    }
    return WN_OK;
}

/* The cache has been read: what is live in it says how many numbers there are. */
static wn_status read_ledger(wn_seq *s, wn_record *r, uint32_t decided_at, uint32_t *noted_at,
                             wn_err *err)
{
    wn_ledger *g = &s->ledger;
    int n = wn_kv_n(s->kv);
    wn_status st = WN_OK;
    wn_ledger_lay_out(g, s->kv, wn_seq_ledger_until(s, n));
    for (int l = 0; l < g->n_lanes; l++)
        for (int i = 0; i < g->n_stats && !st; i++)
            st = wn_record_read(r, wn_ledger_row(g, l, i), sizeof *g->x * (size_t)g->lanes[l].n,
                                err);
    if (st || (st = get_u32(r, noted_at, err))) return st;
    if (*noted_at && *noted_at != decided_at)
        return wn_fail(err, WN_EFORMAT, "statistics of a decision at %u, the last was at %u",
                       *noted_at, decided_at);
    g->n_noted = wn_ledger_noted_at(g, s->kv, (int32_t)*noted_at);
    if (g->n_noted == SIZE_MAX) {
        g->n_noted = 0;
        return wn_fail(err, WN_EFORMAT, "slots behind the last decision, at %u, are not there",
                       *noted_at);
    }
    return wn_record_read(r, g->noted, wn_ledger_noted_bytes(g), err);
}

/* r holds a checked record whose id has been compared. */
static wn_status load_record(wn_seq *s, wn_record *r, wn_err *err)
{
    uint32_t decided_at = 0, noted_at = 0, n = 0, next = 0, next_at = 0;
    wn_seq_cut_ranges(s, 0);            /* what was named here before was not there when the session
                                           decided */
    wn_status st = check_fields(s, r, &decided_at, err);
    if (st || (st = read_marks(s, r, err)) || (st = read_ranges(s, r, err)) ||
        (st = read_tokens(s, r, &n, err))) goto fail;
    if (decided_at > n || (s->n_marks && s->marks[s->n_marks - 1] > (int)n)) {
        st = wn_fail(err, WN_EFORMAT, "a decision at %u or a mark beyond a text of %u tokens",
                     decided_at, n);
        goto fail;
    }
    if (s->growing && (int)n > s->promised && (st = wn_seq_promise(s, (int)n, err))) goto fail;
    if ((st = wn_kv_load(s->kv, (wn_source){ source_read, r }, err))) goto fail;
    if (s->probed.x && !(st = get_u32(r, &next, err)) && !(st = get_u32(r, &next_at, err)) &&
        (next >= (uint32_t)s->e->m->hp.n_vocab || next_at > n))
        st = wn_fail(err, WN_EFORMAT, "token %u foreseen at %u: a text of %u, a vocabulary of %d",
                     next, next_at, n, s->e->m->hp.n_vocab);
    if (s->ledger.n_stats && !st) st = read_ledger(s, r, decided_at, &noted_at, err);
    if (st || wn_kv_n(s->kv) != (int)n || r->at != r->n) {
        int at, kept = wn_kv_n(s->kv);
        wn_kv_truncate(s->kv, 0, &at, NULL);
        wn_seq_restore_ledger(s);
        st = wn_fail(err, WN_EFORMAT,
                     "the cache holds %d positions for %u tokens, %zu bytes are left over", kept, n,
                     r->n - r->at);
        goto fail;
    }
    s->n_fed = s->n_reported = (int)n;
    s->decided_at = (int)decided_at;
    s->noted_at = (int)noted_at;
    s->next = (int32_t)next;
    s->next_at = (int)next_at;
    s->n_logits = 0;
    return WN_OK;
fail:
    s->n_marks = 0;
    wn_seq_cut_ranges(s, 0);
    return st;
}

wn_status wn_seq_load_memory(wn_seq *s, const void *data, size_t size, wn_err *err)
{
    wn_record r;
    wn_status st = wn_record_open_memory(&r, data, size, WN_RECORD_SESSION, err);
    if (!st) st = load_record(s, &r, err);
    wn_record_close(&r);
    return st;
}

wn_status wn_seq_load(wn_seq *s, const char *path, wn_err *err)
{
    wn_record_id id;
    wn_record r;
    if (s->n_fed)
        return wn_fail(err, WN_EINVAL, "session %s: the sequence already holds %d tokens", path,
                       s->n_fed);
    wn_status st = wn_record_open(&r, path, WN_RECORD_SESSION, err);
    if (st) return st;
    make_id(s->e, &id);
    if (memcmp(r.id.fingerprint, id.fingerprint, 16))
        st = wn_fail(err, WN_EINVAL, "saved with another model");
    else if (strcmp(r.id.numerics, id.numerics))
        st = wn_fail(
            err, WN_EINVAL,
            "saved with numerics \"%.31s\", this processor, build and context compute with \"%s\"",
            r.id.numerics, id.numerics);
    else
        st = load_record(s, &r, err);
    wn_record_close(&r);
    return st ? wn_fail_prefix(err, st, "session %s", path) : WN_OK;
}
