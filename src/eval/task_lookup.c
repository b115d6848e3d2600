/* eval/task_lookup.c - the value of one key among as many as fit.
 *
 * "Lost in the Middle" (Liu et al., 2023): all text is data, every pair looks like every other,
 * and nothing before the question says which will matter. The pairs are the filler: their
 * number is what the length allows, found by bisection, and prose fills the rest, which is less
 * than one pair (none at all where that is less than a percent). Depth is the place of the
 * pair in the list. A template for models that manage few pairs bounds their number; then
 * the list is a paragraph in prose, depth is its place there, and the pair's is drawn.
 */
#include "eval/tasks.h"

#include <string.h>

#include "base/alloc.h"
#include "eval/draft.h"

typedef struct { const char *key, *value; } pair;

enum { SAMPLE = 16 };

/* The strings in use: open addressing, never more than half full. */
typedef struct { const char **slot; size_t n_slots; } set;

static bool set_add(set *s, const char *text)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (const char *c = text; *c; c++) h = (h ^ (unsigned char)*c) * 0x100000001b3u;
    for (size_t i = (size_t)h & (s->n_slots - 1);; i = (i + 1) & (s->n_slots - 1)) {
        if (s->slot[i] && !strcmp(s->slot[i], text)) return false;
        if (s->slot[i]) continue;
        s->slot[i] = text;
        return true;
    }
}

/* Draws until key and value are new; false when that takes too long. */
static bool draw_pair(wn_draft *d, pair *out, set *used)
{
    for (int tries = 0; tries < 30; tries++) {
        wn_binds b = { 0 };
        pair t = { .key = wn_draft_draw(d, &b, "key") };
        t.value = wn_draft_draw(d, &b, "value");
        if (d->st || !set_add(used, t.key)) continue;
        *out = t;
        if (set_add(used, t.value)) return true;
    }
    return false;
}

/* The data with the first n pairs, the asked one among them where depth says. */
static const char *write_data(wn_draft *d, const pair *asked, double depth, const pair *others,
                              int n)
{
    wn_binds none = { 0 };
    wn_strbuf s = { 0 };
    int place = (int)(depth * n + 0.5);
    wn_strbuf_puts(&s, wn_draft_phrase(d, &none, "open"));
    for (int i = 0; i <= n && !d->st; i++) {
        const pair *t = i == place ? asked : &others[i - (i > place)];
        const char *phrase = wn_phrases_text(d->p, d->task, "pair");
        if (i) wn_strbuf_puts(&s, wn_phrases_text(d->p, d->task, "between"));
        /* not expanded: a draft keeps all it expands */
        for (const char *c; (c = strchr(phrase, '{')); ) {
            bool key = !strncmp(c, "{key}", 5), value = !strncmp(c, "{value}", 7);
            wn_strbuf_add(&s, phrase, (size_t)(c - phrase) + !(key || value));
            wn_strbuf_puts(&s, key ? t->key : value ? t->value : "");
            phrase = c + (key ? 5 : value ? 7 : 1);
        }
        wn_strbuf_puts(&s, phrase);
    }
    wn_strbuf_puts(&s, wn_draft_phrase(d, &none, "close"));
    return wn_draft_keep(d, &s);
}

/* The largest number of pairs whose data has at most room tokens. */
static const char *fit_pairs(wn_draft *d, const pair *asked, double depth, const pair *others,
                             int n, size_t room)
{
    int lo = 0, hi = n + 1;
    const char *best = write_data(d, asked, depth, others, 0);
    while (hi - lo > 1 && !d->st) {
        int mid = lo + (hi - lo) / 2;
        const char *text = write_data(d, asked, depth, others, mid);
        if (wn_draft_count(d, text) <= room) {
            best = text;
            lo = mid;
        } else {
            hi = mid;
        }
    }
    return best;
}

static void build_lookup(wn_draft *d)
{
    double depth = wn_draft_depth(d);
    wn_binds b = { 0 }, none = { 0 };
    pair asked = { 0 }, *others = NULL;
    set used = { 0 };
    int n = SAMPLE, k = 0, most = wn_phrases_number(d->p, d->task, "pairs");
    for (int tries = 0;; tries++) {
        b.n = 0;
        asked = (pair){ .key = wn_draft_draw(d, &b, "key") };
        asked.value = wn_draft_draw(d, &b, "value");
        if (strcmp(asked.key, asked.value) &&
            wn_draft_fresh(d, asked.key, NULL, asked.value, tries))
            break;
        if (d->st) return;
    }
    wn_draft_ask(d, &b, WN_SCORE_VALUES);
    wn_draft_expect(d, asked.value);
    size_t room = wn_draft_room(d),
           head = wn_draft_count(d, wn_draft_phrase(d, &none, "intro")) + 4;
    if (d->markup->system_text[0]) head += wn_draft_count(d, d->markup->system_text) + 8;
    room = room > head ? room - head : 0;
    /* a sample for the size of a pair, then all */
    for (int round = 0; round < 2 && !d->st; round++) {
        used.n_slots = 64;
        while (used.n_slots < (size_t)n * 8) used.n_slots *= 2;
        wn_free(used.slot);
        wn_free(others);
        used.slot = WN_NEW_ARRAY(const char *, used.n_slots);
        others = WN_NEW_ARRAY(pair, n);
        if (!used.slot || !others) {
            wn_draft_fail(d, WN_ENOMEM, "out of memory for %d pairs", n);
            break;
        }
        set_add(&used, asked.key);
        set_add(&used, asked.value);
        for (k = 0; k < n && draw_pair(d, &others[k], &used); k++) continue;
        if (k < n && !d->st)
            wn_draft_fail(d, WN_EINVAL,
                          "the template's keys and values give %d different pairs and %d are "
                          "needed; make them "
                          "longer",
                          k, n);
        if (round == 0 && !d->st) {
            size_t two = wn_draft_count(d, write_data(d, &asked, 0, others, SAMPLE));
            size_t one = wn_draft_count(d, write_data(d, &asked, 0, others, SAMPLE / 2));
            size_t per = WN_MAX((two - WN_MIN(one, two)) / (SAMPLE / 2), (size_t)1);
            n = (int)WN_MIN(room / per + room / per / 8 + 8, (size_t)most);
        }
    }
    bool bounded = k == most;
    double place = bounded ? wn_draft_unit(d) : depth;
    if (!d->st)
        wn_draft_fact(d, bounded ? depth : 1, fit_pairs(d, &asked, place, others, k, room), true);
    wn_free(used.slot);
    wn_free(others);
}

WN_TASK(lookup, "the value of one key in a long list of pairs", true);
