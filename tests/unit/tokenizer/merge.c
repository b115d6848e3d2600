/* Merging: the heap must give what the definition gives (look at all pairs, join the best,
 * leftmost of equals, start over), in both families, on random vocabularies and words;
 * and a word of a megabyte must come through. */
#include "tests/unit/check.h"
#include "tests/unit/tokenizer/vocab.h"

#define MAX_PIECES 80

typedef struct {
    char text[MAX_PIECES][16];
    int n;
} pieces;

static int find(const pieces *p, const char *s)
{
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->text[i], s) == 0) return i;
    return -1;
}

/* Letters a..d (for spm, d is the space), then random concatenations of earlier pieces. left,
 * right: the parts. */
static void random_pieces(pieces *p, int left[], int right[], bool space_leads, uint64_t *seed)
{
    char s[32];
    for (p->n = 0; p->n < 4; p->n++) snprintf(p->text[p->n], 16, "%c", 'a' + p->n);
    for (int tries = 0; p->n < 40 && tries < 400; tries++) {
        int l = (int)(test_rand(seed) % (unsigned)p->n),
            r = (int)(test_rand(seed) % (unsigned)p->n);
        snprintf(s, sizeof s, "%s%s", p->text[l], p->text[r]);
        if (strlen(s) > 12 || find(p, s) >= 0) continue;
        if (space_leads && strchr(s + strspn(s, "d"), 'd')) continue;
        left[p->n] = l;
        right[p->n] = r;
        strcpy(p->text[p->n++], s);
    }
}

typedef struct {
    const pieces *p;
    const int *left, *right;        /* bpe: the pair that makes piece i, at rank i */
    const float *score;             /* spm */
} definition;

/* How early the pair (a, b) joins: larger is better; -INFINITY never. What it makes. */
static double worth(const definition *d, int a, int b, int *made)
{
    char s[40];
    if (d->score) {
        snprintf(s, sizeof s, "%s%s", d->p->text[a], d->p->text[b]);
        *made = find(d->p, s);
        return *made < 0 ? -1e300 : (double)d->score[*made];
    }
    for (int i = 4; i < d->p->n; i++)
        if (d->left[i] == a && d->right[i] == b) return *made = i, -i;
    return -1e300;
}

static int merge_slowly(const definition *d, int *sym, int n)
{
    for (;;) {
        double best = -1e299;
        int at = -1, becomes = 0, made = -1;
        for (int i = 0; i + 1 < n; i++) {
            double w = worth(d, sym[i], sym[i + 1], &made);
            if (w > best) best = w, at = i, becomes = made;
        }
        if (at < 0) return n;
        sym[at] = becomes;
        memmove(sym + at + 1, sym + at + 2, (size_t)(n - at - 2) * sizeof *sym);
        n--;
    }
}

/* spm: "ad" is the token a, U+2581. */
static void spell(char out[64], const char *s, bool spm)
{
    for (*out = 0; *s; s++)
        strcat(out, spm && *s == 'd' ? "\xE2\x96\x81" : (char[]){ *s, 0 });
}

static void compare(wn_tokenizer *t, const definition *d, uint64_t *seed, uint64_t first_seed)
{
    for (int round = 0; round < 30; round++) {
        char word[200];
        int sym[200], n = 1 + (int)(test_rand(seed) % 150),
                      letters = 1 + (int)(test_rand(seed) % 4);
        for (int i = 0; i < n; i++) {
            sym[i] = (int)(test_rand(seed) % (unsigned)letters);
            word[i] = d->score && sym[i] == 3 ? ' ' : (char)('a' + sym[i]);
        }
        int32_t *ids;
        size_t n_ids;
        assert_int_equal(wn_tokenize(t, word, (size_t)n, &(wn_tokenize_opts){ .no_bos_eos = true },
                                     &ids, &n_ids, NULL), WN_OK);
        int want = merge_slowly(d, sym, n);
        if ((size_t)want != n_ids)
            fail_msg("seed %llu, \"%.*s\": %zu ids, not %d", (unsigned long long)first_seed, n,
                     word, n_ids, want);
        for (int i = 0; i < want; i++) {
            char s[64];
            spell(s, d->p->text[sym[i]], d->score);
            assert_int_equal(ids[i], wn_tokenizer_find(t, s, strlen(s)));
        }
        wn_free(ids);
    }
}

static void heap_is_the_definition_bpe(void **state)
{
    (void)state;
    for (uint64_t first = 1; first <= 40; first++) {
        static char room[256 * 3], line[MAX_PIECES][32];
        const char *tokens[256 + MAX_PIECES], *merges[MAX_PIECES];
        int left[MAX_PIECES], right[MAX_PIECES], n_merges = 0;
        uint64_t seed = first;
        pieces p;
        wn_gguf *g;
        wn_tokenizer *t;
        random_pieces(&p, left, right, false, &seed);
        test_byte_tokens(tokens, room);
        for (int i = 4; i < p.n; i++) {
            tokens[256 + i - 4] = p.text[i];
            snprintf(line[i], sizeof line[i], "%s %s", p.text[left[i]], p.text[right[i]]);
            merges[n_merges++] = line[i];
        }
        assert_int_equal(test_vocab_open(&g, &t, &(test_vocab){ .model = "gpt2", .pre = "gpt-2",
                         .tokens = tokens, .n = (size_t)(256 + p.n - 4), .merges = merges,
                         .n_merges = (size_t)n_merges }, NULL), WN_OK);
        compare(t, &(definition){ .p = &p, .left = left, .right = right }, &seed, first);
        wn_tokenizer_close(t);
        wn_gguf_close(g);
    }
}

static void heap_is_the_definition_spm(void **state)
{
    (void)state;
    for (uint64_t first = 1; first <= 40; first++) {
        const char *tokens[MAX_PIECES];
        static char spelled[MAX_PIECES][64];
        float scores[MAX_PIECES];
        int left[MAX_PIECES], right[MAX_PIECES];
        uint64_t seed = first;
        pieces p;
        wn_gguf *g;
        wn_tokenizer *t;
        /* half of them with spaces inside pieces, so that merges reach over them */
        random_pieces(&p, left, right, first % 2, &seed);
        /* few different scores, so that ties are common */
        for (int i = 0; i < p.n; i++) {
            spell(spelled[i], p.text[i], true);
            tokens[i] = spelled[i];
            scores[i] = (float)(int)(test_rand(&seed) % 5) - 2.0f;
            if (scores[i] == 0 && i % 2) scores[i] = -0.0f;
        }
        assert_int_equal(test_vocab_open(&g, &t, &(test_vocab){ .model = "llama", .tokens = tokens,
                         .n = (size_t)p.n, .scores = scores, .space_prefix = -1 }, NULL), WN_OK);
        compare(t, &(definition){ .p = &p, .score = scores }, &seed, first);
        wn_tokenizer_close(t);
        wn_gguf_close(g);
    }
}

/* No time is asserted; what is quadratic here takes hours and is noticed. */
static void a_word_of_a_megabyte(void **state)
{
    const size_t n = 1 << 20;
    char *word = malloc(n);
    uint64_t seed = 7;
    (void)state;
    assert_non_null(word);
    for (int family = 0; family < 2; family++) {
        wn_gguf *g;
        wn_tokenizer *t;
        assert_int_equal(family ? test_spm_open(&g, &t, 1, NULL)
                                : test_bpe_open(&g, &t, "llama-bpe", NULL), WN_OK);
        for (int what = 0; what < 3; what++) {
            int32_t *ids;
            size_t n_ids, n_back;
            for (size_t i = 0; i < n; i++)
                word[i] = what == 0 ? 'a' : what == 1 ? (char)('a' + test_rand(&seed) % 26) : ' ';
            assert_int_equal(wn_tokenize(t, word, n, &(wn_tokenize_opts){ .no_bos_eos = true },
                                         &ids, &n_ids, NULL),
                             WN_OK);
            if (what == 0 && family == 0) assert_int_equal(n_ids, n / 4);
            char *back = test_decode(t, ids, n_ids, false, &n_back);
            assert_int_equal(n_back, n);
            assert_memory_equal(back, word, n);
            free(back);
            wn_free(ids);
        }
        wn_tokenizer_close(t);
        wn_gguf_close(g);
    }
    free(word);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heap_is_the_definition_bpe),
        cmocka_unit_test(heap_is_the_definition_spm),
        cmocka_unit_test(a_word_of_a_megabyte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
