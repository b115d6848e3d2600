/* eval/searchlog.c - see searchlog.h. The text of the file is kept as it is written; reading it
 * goes line by line, each batch when it is asked for. */
#include "eval/searchlog.h"

#include "base/alloc.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static const char KIND[] = "winnow search ";

struct wn_search_log {
    char *path;
    char *text; size_t n, cap;          /* what the file says, its last line left out */
    size_t at;                          /* behind the last batch that was asked for */
    int n_batches;                      /* that were asked for, or added */
};

static uint64_t hash(const void *x, size_t bytes) { return XXH3_64bits(x, bytes); }

static wn_status append(wn_search_log *l, const char *s, wn_err *err)
{
    size_t n = strlen(s);
    if (l->n + n + 1 > l->cap) {
        size_t cap = 2 * (l->n + n) + 4096;
        char *p = wn_realloc(l->text, cap);
        if (!p) return wn_fail(err, WN_ENOMEM, "%s: out of memory", l->path);
        l->text = p;
        l->cap = cap;
    }
    memcpy(l->text + l->n, s, n + 1);
    l->n += n;
    return WN_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* The first line and the last say what the file is, and that all of it is there. */
static wn_status check(wn_search_log *l, const char *all, size_t n, const char *head, size_t *body,
                       wn_err *err)
{
    char end[32];
    size_t kind = strlen(KIND);
    if (n < kind || memcmp(all, KIND, kind))
        return wn_fail(err, WN_EFORMAT, "%s: not the state of a search", l->path);
    long version = strtol(all + kind, NULL, 10);
    if (version != WN_SEARCH_VERSION)
        return wn_fail(err, WN_EUNSUPPORTED,
                       "%s: state of a search, version %ld; this program reads version %d", l->path,
                       version, WN_SEARCH_VERSION);
    size_t tail = strlen("end 0123456789abcdef\n");
    *body = n > tail ? n - tail : 0;
    snprintf(end, sizeof end, "end %016llx\n", (unsigned long long)hash(all, *body));
    if (memcmp(all + *body, end, n - *body))
        return wn_fail(err, WN_EFORMAT,
                       "%s: damaged, or changed by hand: remove it, and the search begins anew",
                       l->path);
    if (*body < strlen(head) || memcmp(all, head, strlen(head)))
        return wn_fail(err, WN_EINVAL,
                       "%s: the state of another search (another policy, other texts, numbers or "
                       "program): end that "
                       "one first, or remove the file",
                       l->path);
    return WN_OK;
}

static wn_status read_all(wn_search_log *l, const char *head, wn_err *err)
{
    wn_os_file f;
    size_t body = 0;
    wn_status st = wn_os_file_open(&f, l->path, err);
    if (st) return st;
    char *all = WN_NEW_ARRAY(char, f.size + 1);
    if (!all) st = wn_fail(err, WN_ENOMEM, "%s: out of memory", l->path);
    else {
        memcpy(all, f.data, f.size);
        if (!(st = check(l, all, f.size, head, &body, err))) {
            all[body] = '\0';
            st = append(l, all, err);
        }
    }
    wn_free(all);
    wn_os_file_close(&f);
    return st;
}

wn_status wn_search_log_open(wn_search_log **out, const char *path, const char *key, wn_err *err)
{
    char head[128];
    wn_status st = WN_OK;
    *out = NULL;
    if (!path) return WN_OK;
    wn_search_log *l = WN_NEW(wn_search_log);
    if (!l || !(l->path = wn_strdup(path))) {
        wn_free(l);
        return wn_fail(err, WN_ENOMEM, "search: out of memory");
    }
    snprintf(head, sizeof head, "%s%d %s\n", KIND, WN_SEARCH_VERSION, key);
    st = access(path, F_OK) ? append(l, head, err) : read_all(l, head, err);
    l->at = strlen(head);
    if (st) wn_search_log_close(l);
    else *out = l;
    return st;
}

void wn_search_log_close(wn_search_log *l)
{
    if (!l) return;
    wn_free(l->path);
    wn_free(l->text);
    wn_free(l);
}

wn_status wn_search_log_find(wn_search_log *l, const double *x, size_t n_x, double *costs, size_t n,
                             bool *known, wn_err *err)
{
    char head[64];
    *known = false;
    if (!l || l->at == l->n) return WN_OK;
    snprintf(head, sizeof head, "%d %zu %016llx", l->n_batches, n,
             (unsigned long long)hash(x, n_x * sizeof *x));
    char *at = l->text + l->at, *end = at + strlen(head);
    bool ok = !strncmp(at, head, strlen(head));
    for (size_t i = 0; i < n && ok; i++) {
        at = end;
        costs[i] = strtod(at, &end);
        ok = end > at;
    }
    if (!ok || *end != '\n')
        return wn_fail(err, WN_EFORMAT,
                       "%s: batch %d is not what this search tries there: remove it, and the "
                       "search begins anew",
                       l->path, l->n_batches);
    l->at = (size_t)(end + 1 - l->text);
    l->n_batches++;
    *known = true;
    return WN_OK;
}

/* ---- writing ------------------------------------------------------------------------------- */

wn_status wn_search_log_add(wn_search_log *l, const double *x, size_t n_x, const double *costs,
                            size_t n, wn_err *err)
{
    char some[64];
    if (!l) return WN_OK;
    snprintf(some, sizeof some, "%d %zu %016llx", l->n_batches++, n,
             (unsigned long long)hash(x, n_x * sizeof *x));
    wn_status st = append(l, some, err);
    for (size_t i = 0; i < n && !st; i++) {
        snprintf(some, sizeof some, " %a", costs[i]);
        st = append(l, some, err);
    }
    if (!st) st = append(l, "\n", err);
    if (st) return st;
    size_t body = l->at = l->n;
    snprintf(some, sizeof some, "end %016llx\n", (unsigned long long)hash(l->text, body));
    if (!(st = append(l, some, err))) st = wn_os_file_replace(l->path, l->text, l->n, err);
    l->text[l->n = body] = '\0';
    return st;
}
