/* tokenizer/merge.c - joining neighbours, best pair first.
 *
 * Both families tokenise the same way: begin with the smallest symbols and join, again
 * and again, the pair of neighbours that comes first (lowest rank, or highest score; of
 * equals the leftmost). Looking for that pair anew after each join is quadratic, which a
 * word of a megabyte turns into minutes. Here the symbols are a doubly linked list in
 * an array and the pairs wait in a binary heap ordered by (key, position). A join changes
 * two pairs; their new keys are pushed and the old entries stay behind, to be recognised
 * when they surface: an entry holds as long as its symbol is alive and the pair that
 * begins there still has that key. At most three entries per symbol are ever pushed, so
 * a piece of n symbols takes O(n log n) time and O(n) memory.
 */
#include "tokenizer/vocab.h"

#include "base/alloc.h"

#define NONE UINT32_MAX

void wn_merge_release(wn_merge *m)
{
    wn_free(m->sym);
    wn_free(m->heap);
    *m = (wn_merge){ 0 };
}

wn_status wn_merge_begin(wn_merge *m, size_t n, wn_err *err)
{
    m->n = m->n_heap = 0;
    if (n <= m->cap) return WN_OK;
    n = WN_MAX(n, (size_t)256);
    wn_free(m->sym);
    wn_free(m->heap);
    m->cap = 0;
    m->sym = wn_alloc(n * sizeof *m->sym);
    /* n - 1 pairs to begin with, and each of at most n - 1 joins adds two */
    m->heap = wn_alloc(3 * n * sizeof *m->heap);
    if (!m->sym || !m->heap)
        return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for a word of %zu bytes", n);
    m->cap = n;
    m->cap_heap = 3 * n;
    return WN_OK;
}

static void heap_push(wn_merge *m, uint32_t key, uint32_t at)
{
    uint64_t x = (uint64_t)key << 32 | at, *h = m->heap;
    size_t i = m->n_heap++;
    WN_ASSERT(i < m->cap_heap);
    for (; i > 0 && h[(i - 1) / 2] > x; i = (i - 1) / 2) h[i] = h[(i - 1) / 2];
    h[i] = x;
}

static uint64_t heap_pop(wn_merge *m)
{
    uint64_t *h = m->heap, top = h[0], x = h[--m->n_heap];
    size_t i = 0, c, n = m->n_heap;
    while ((c = 2 * i + 1) < n) {
        if (c + 1 < n && h[c + 1] < h[c]) c++;
        if (h[c] >= x) break;
        h[i] = h[c];
        i = c;
    }
    h[i] = x;
    return top;
}

/* Asks again what the pair that begins at symbol i becomes. */
static void renew(wn_merge *m, uint32_t i, wn_pair *pair, const void *ctx)
{
    wn_symbol *a = &m->sym[i];
    a->key = WN_NO_KEY;
    if (a->next == NONE) return;
    pair(ctx, a, &m->sym[a->next]);
    if (a->key != WN_NO_KEY) heap_push(m, a->key, i);
}

void wn_merge_run(wn_merge *m, wn_pair *pair, const void *ctx)
{
    uint32_t n = (uint32_t)m->n;
    for (uint32_t i = 0; i < n; i++) {
        m->sym[i].prev = i ? i - 1 : NONE;
        m->sym[i].next = i + 1 < n ? i + 1 : NONE;
    }
    for (uint32_t i = 0; i < n; i++) renew(m, i, pair, ctx);
    while (m->n_heap) {
        uint64_t top = heap_pop(m);
        uint32_t i = (uint32_t)top, key = (uint32_t)(top >> 32);
        wn_symbol *a = &m->sym[i], *b;
        if (a->key != key) continue;            /* left behind by a later join */
        b = &m->sym[a->next];
        a->id = a->joined;
        a->n += b->n;
        a->next = b->next;
        b->key = WN_NO_KEY;                     /* dead: its entries hold no more */
        if (a->next != NONE) m->sym[a->next].prev = i;
        renew(m, i, pair, ctx);
        if (a->prev != NONE) renew(m, a->prev, pair, ctx);
    }
}
