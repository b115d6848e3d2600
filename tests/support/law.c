/* tests/support/law.c - see law.h. */
#include "tests/support/law.h"
#include "tests/unit/check.h"

#include <unistd.h>

const int law_marks[3] = { 100, 333, 512 };
int32_t law_ids[LAW_N];
int law_slots;
bool law_ranges;
const char *law_model;
const wn_profile *law_profile;

/* ---- running a text ---------------------------------------------------------------------- */

/* Room for many sequences: each size of frames takes whole extents, and encoded caches have
 * several. */
test_engine law_engine(law_way w)
{
    test_engine t = test_engine_open(law_model,
                                     (wn_engine_opts){ .n_threads = w.threads,
                                                       .n_batch = w.chunk,
                                                       .max_seqs = 64,
                                                       .page_slots = w.slots ? w.slots : law_slots,
                                                       .protected_tokens = 64 * 64 });
    if (law_profile) wn_engine_lend_profile(t.e, law_profile);
    return t;
}

/* Named again after a fork, a truncation, a session, which have those up to their tokens. */
static void name_ranges(test_seq *q, int at)
{
    static const struct { int at, from, to; wn_range_kind kind;
    } named[] = {
        { 0, 20, 44, WN_RANGE_NAMED },
        { 0, 3, 11, WN_RANGE_SYSTEM },
        { 0, 130, 137, WN_RANGE_NAMED },
        { 333, 340, 351, WN_RANGE_NAMED },
    };
    static const struct {
        int at, from, to;
    } spans[] = { { 0, 0, 40 }, { 0, 50, 90 }, { 0, 90, 200 }, { 333, 335, 400 } };
    wn_err err = { 0 };
    for (size_t i = 0; law_ranges && i < WN_COUNT(named); i++)
        if (named[i].at <= at &&
            wn_seq_protect(q->s, named[i].from, named[i].to, named[i].kind, &err))
            fail_msg("protect: %s", err.text);
    for (size_t i = 0; law_ranges && i < WN_COUNT(spans); i++)
        if (spans[i].at <= at && wn_seq_name_span(q->s, spans[i].from, spans[i].to, &err))
            fail_msg("span: %s", err.text);
}

/* Tokens [n_fed, to) with their marks, waiting to be computed. */
static void feed(test_seq *q, int to)
{
    wn_err err = { 0 };
    q->s->opts.on_logits_ctx = q;
    for (int at = wn_seq_n_tokens(q->s), next; at < to; at = next) {
        next = to;
        name_ranges(q, at);
        for (size_t i = 0; i < WN_COUNT(law_marks); i++) {
            if (law_marks[i] == at && wn_seq_mark(q->s, &err)) fail_msg("mark: %s", err.text);
            if (law_marks[i] > at) next = WN_MIN(next, law_marks[i]);
        }
        if (wn_seq_feed(q->s, law_ids + at, (size_t)(next - at), &err))
            fail_msg("feed: %s", err.text);
    }
}

void law_run_to(test_engine *t, test_seq *q, int to)
{
    feed(q, to);
    test_steps(t);
}

/* Sequences whose chunks, single tokens and decisions come in between. */
static void run_among_others(test_engine *t, test_seq *q)
{
    static const char *const kv[3] = { "random(every=32)@30%", "recent(every=16,at=both)@40",
                                       NULL };
    wn_seq *other[3];
    wn_err err = { 0 };
    for (int i = 0; i < 3; i++) {
        if (wn_seq_open(&other[i], t->e, &(wn_seq_opts){ .max_tokens = 400, .kv = kv[i] }, &err))
            fail_msg("%s", err.text);
        assert_int_equal(wn_seq_feed(other[i], law_ids + i, 90 + 70 * (size_t)i, &err), WN_OK);
    }
    for (int at = 0; at < LAW_N; at += 50) {
        feed(q, WN_MIN(at + 50, LAW_N));
        assert_int_equal(wn_seq_feed(other[at / 50 % 3], law_ids + at, 1 + (size_t)at % 7, &err),
                         WN_OK);
        if (at % 150 == 0) assert_int_equal(wn_seq_mark(other[1], &err), WN_OK);
        assert_int_equal(wn_engine_step(t->e, NULL, &err), WN_OK);
    }
    test_steps(t);
    for (int i = 0; i < 3; i++) wn_seq_close(other[i]);
}

float *law_logits(law_way w)
{
    test_engine t = law_engine(w);
    test_seq q = test_seq_open_kv(&t, LAW_N, w.kv);
    if (w.neighbours) run_among_others(&t, &q);
    else law_run_to(&t, &q, LAW_N);
    assert_int_equal(q.n_seen, LAW_N);
    wn_kv_check(q.s->kv);
    float *out = q.logits;
    q.logits = NULL;
    test_seq_close(&q);
    test_engine_close(&t);
    return out;
}

float *law_reference(const char *kv)
{
    return law_logits((law_way){ .kv = kv, .threads = 1, .chunk = 512 });
}

void law_compare(const float *ref, law_way w)
{
    char what[200];
    float *got = law_logits(w);
    snprintf(what, sizeof what, "%s, %d threads, chunks of %d, pages of %d%s", w.kv, w.threads,
             w.chunk, w.slots, w.neighbours ? ", with neighbours" : "");
    test_same_logits(what, ref, got, LAW_N, LAW_VOCAB);
    free(got);
}

const char *law_session_path(void)
{
    static char path[128];
    return test_path(path, sizeof path, "policies.session");
}

void law_finish(test_engine *t, test_seq *q, const char *kv, const char *how, int cut,
                const float *ref)
{
    char what[200];
    law_run_to(t, q, LAW_N);
    snprintf(what, sizeof what, "%s, %s at %d", kv, how, cut);
    wn_kv_check(q->s->kv);
    test_same_logits(what, ref, q->logits, LAW_N, LAW_VOCAB);
}

void law_cut_at(const char *kv, int cut, const float *ref)
{
    test_engine t = law_engine((law_way){ .threads = 2, .chunk = 100 });
    test_seq q = test_seq_open_kv(&t, LAW_N, kv), f = { .n_vocab = LAW_VOCAB }, r;
    size_t bytes = sizeof(float) * LAW_N * LAW_VOCAB;
    wn_err err = { 0 };
    law_run_to(&t, &q, cut);
    f.logits = malloc(bytes);
    assert_non_null(f.logits);
    memcpy(f.logits, q.logits, bytes);
    if (wn_seq_fork(&f.s, q.s, NULL, &err)) fail_msg("fork: %s", err.text);
    if (wn_seq_save(q.s, law_session_path(), &err)) fail_msg("save: %s", err.text);
    /* not this text's tokens */
    if (wn_seq_feed(q.s, law_ids + 7, 90, &err)) fail_msg("%s", err.text);
    if (cut % 2 && wn_seq_mark(q.s, &err)) fail_msg("%s", err.text);
    test_steps(&t);
    law_finish(&t, &f, kv, "forked", cut, ref);
    memset(q.logits, 0, bytes);         /* what is computed again is seen again */
    memcpy(q.logits, ref, sizeof(float) * (size_t)cut * LAW_VOCAB);
    if (wn_seq_truncate(q.s, cut, &err)) fail_msg("truncate: %s", err.text);
    law_finish(&t, &q, kv, "taken back", cut, ref);
    if (wn_seq_truncate(q.s, cut / 2, &err)) fail_msg("truncate: %s", err.text);
    law_finish(&t, &q, kv, "taken back to half", cut, ref);
    wn_seq_close(f.s);
    r = test_seq_open_kv(&t, LAW_N, kv);
    if (wn_seq_load(r.s, law_session_path(), &err)) fail_msg("load: %s", err.text);
    memcpy(r.logits, ref, sizeof(float) * (size_t)cut * LAW_VOCAB);
    law_finish(&t, &r, kv, "saved", cut, ref);
    unlink(law_session_path());
    test_seq_close(&r);
    test_seq_close(&q);
    free(f.logits);
    test_engine_close(&t);
}

