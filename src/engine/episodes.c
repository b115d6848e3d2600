/* engine/episodes.c - what a text speaks of, found without reading it: pieces of it that are alike.
 *
 * A conversation comes back to the same few matters. A piece is as many tokens in a row; it is like
 * the mean of its tokens' embeddings, the rows that the model itself begins with, scaled to
 * length 1: no second model, and no pass of this one. Long rows are folded to
 * WN_EPISODE_DIM numbers, with signs, which keeps dot products up to a few per cent.
 *
 *     x (n pieces) -> k centres far from each other (k-means++) -> each piece to the nearest, each centre to the mean
 *                  -> again, until none moves           ten times from other beginnings: the tightest
 *
 * All of it is in doubles and in one order, and the k-th random number is a function of k: the same
 * tokens have the same episodes.
 */
#include "engine/engine.h"
#include "sample/sample.h"

#include <math.h>
#include <string.h>

enum { D = WN_EPISODE_DIM, BEGINNINGS = 10, ROUNDS = 50 };

int wn_episode_pieces(int n, int size) { return WN_MAX(1, (n + size / 2) / size); }

void wn_episode_embed(const wn_model *m, const int32_t *tokens, int n, float *row, float *out)
{
    double sum[D] = { 0 }, norm = 0;
    for (int i = 0; i < n; i++) {
        wn_matrix_row(&m->embed, tokens[i], row);
        for (int e = 0; e < m->hp.n_embd; e++)
            sum[e % D] += (e / D & 1 ? -1.0 : 1.0) * (double)row[e];
    }
    for (int d = 0; d < D; d++) norm += sum[d] * sum[d];
    for (int d = 0; d < D; d++) out[d] = norm > 0 ? (float)(sum[d] / sqrt(norm)) : 0;
}

static double dot(const float *x, const double *c)
{
    double sum = 0;
    for (int d = 0; d < D; d++) sum += (double)x[d] * c[d];
    return sum;
}

static double distance(const float *x, const double *c)
{
    double sum = 0;
    for (int d = 0; d < D; d++) sum += ((double)x[d] - c[d]) * ((double)x[d] - c[d]);
    return sum;
}

static int nearest(const float *x, const double *centres, int k, double *far)
{
    int best = 0;
    *far = INFINITY;
    for (int c = 0; c < k; c++) {
        double d = distance(x, centres + c * D);
        if (d < *far) *far = d, best = c;
    }
    return best;
}

static void put(double *centre, const float *x)
{
    for (int d = 0; d < D; d++) centre[d] = (double)x[d];
}

/* Each new centre is a piece, drawn by the square of its distance to the centres there are. Returns
 * how many there are: fewer where all pieces lie on some. */
static int begin(const float *x, int n, int k, uint64_t seed, double *centres)
{
    int made = 1;
    put(centres, x + (size_t)(wn_sample_uniform(seed, 0) * n) * D);
    for (; made < k; made++) {
        double all = 0, far, left;
        for (int i = 0; i < n; i++) nearest(x + (size_t)i * D, centres, made, &far), all += far;
        if (!(all > 1e-9)) break;
        left = all * wn_sample_uniform(seed, made);
        int chosen = -1;
        for (int i = 0; i < n && left >= 0; i++) {
            nearest(x + (size_t)i * D, centres, made, &far);
            if (far > 0) chosen = i, left -= far;
        }
        put(centres + made * D, x + (size_t)chosen * D);
    }
    return made;
}

/* Every piece to its nearest centre; the sum of squared distances. */
static double deal(const float *x, int n, const double *centres, int k, int *of, bool *moved)
{
    double sum = 0, far;
    *moved = false;
    for (int i = 0; i < n; i++) {
        int c = nearest(x + (size_t)i * D, centres, k, &far);
        *moved |= of[i] != c;
        of[i] = c;
        sum += far;
    }
    return sum;
}

/* A centre that nobody is near to stays where it is. */
static void gather(const float *x, int n, const int *of, double *centres, int k)
{
    for (int c = 0; c < k; c++) {
        double sum[D] = { 0 };
        int members = 0;
        for (int i = 0; i < n; i++) {
            if (of[i] != c) continue;
            members++;
            for (int d = 0; d < D; d++) sum[d] += (double)x[(size_t)i * D + (size_t)d];
        }
        for (int d = 0; d < D && members; d++) centres[c * D + d] = sum[d] / members;
    }
}

static double settle(const float *x, int n, double *centres, int k, int *of)
{
    bool moved;
    double sum = deal(x, n, centres, k, of, &moved);
    for (int round = 0; round < ROUNDS; round++) {
        gather(x, n, of, centres, k);
        sum = deal(x, n, centres, k, of, &moved);
        if (!moved) break;
    }
    return sum;
}

/* Numbers in the order of first pieces; those without any are left out. */
static int number(int n, int k, int *of, double *centres)
{
    int name[WN_EPISODES_MAX], made = 0;
    double sorted[WN_EPISODES_MAX * D];
    for (int c = 0; c < k; c++) name[c] = -1;
    for (int i = 0; i < n; i++) {
        if (name[of[i]] < 0) {
            name[of[i]] = made;
            memcpy(sorted + made++ * D, centres + of[i] * D, sizeof *sorted * D);
        }
        of[i] = name[of[i]];
    }
    memcpy(centres, sorted, sizeof *sorted * D * (size_t)made);
    return made;
}

int wn_episode_cluster(const float *x, int n, int k, int *of, double *centres)
{
    double tried[WN_EPISODES_MAX * D], tightest = INFINITY;
    uint64_t best = 0;
    WN_ASSERT(n > 0 && k > 0 && k <= WN_EPISODES_MAX);
    for (uint64_t seed = 0; seed < BEGINNINGS; seed++) {
        double sum = settle(x, n, tried, begin(x, n, k, seed, tried), of);
        if (sum < tightest) tightest = sum, best = seed;
    }
    int made = begin(x, n, k, best, centres);
    settle(x, n, centres, made, of);
    return number(n, made, of, centres);
}

int wn_episode_typical(const float *x, int n, const int *of, const double *centres, int c, int want,
                       int *pieces)
{
    int made = 0;
    while (made < want) {
        int best = -1;
        double most = 0;
        for (int i = 0; i < n; i++) {
            bool taken = of[i] != c;
            for (int k = 0; k < made; k++) taken |= pieces[k] == i;
            double like = taken ? 0 : dot(x + (size_t)i * D, centres + c * D);
            if (!taken && (best < 0 || like > most)) best = i, most = like;
        }
        if (best < 0) break;
        int k = made++;
        for (; k > 0 && pieces[k - 1] > best; k--) pieces[k] = pieces[k - 1];
        pieces[k] = best;
    }
    return made;
}

int wn_episode_nearest(const float *row, const double *centres, int k)
{
    int best = 0;
    for (int c = 1; c < k; c++)
        if (dot(row, centres + c * D) > dot(row, centres + best * D)) best = c;
    return best;
}
