/* cli/ranges.c - see ranges.h. */
#include "cli/ranges.h"

#include "base/alloc.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool wn_cli_range(const char *s, int *from, int *to)
{
    char *end;
    long a = strtol(s, &end, 10), b = a;
    if (!isdigit((unsigned char)*s)) return false;
    if (*end == '-' && isdigit((unsigned char)end[1])) b = strtol(end + 1, &end, 10);
    if (*end || a > INT32_MAX - 1 || b > INT32_MAX - 1 || b < a) return false;
    *from = (int)a;
    *to = (int)b + 1;
    return true;
}

wn_status wn_cli_find_text(const wn_model *m, const int32_t *ids, size_t n, const char *text,
                           int *from, int *to, wn_err *err)
{
    size_t len = 0, *end = wn_alloc(sizeof *end * (n + 1));
    char *all = NULL;
    const char *at = NULL;
    for (int pass = 0; end && pass < 2; pass++) {       /* first the length, then the bytes */
        size_t cap = len;
        if (pass && !(all = wn_alloc(cap + 1))) break;
        len = 0;
        for (size_t i = 0; i < n; i++) {
            len += wn_token_text(m, ids[i], false, pass ? all + len : NULL, pass ? cap - len : 0);
            end[i] = len;
        }
    }
    if (all) at = memmem(all, len, text, strlen(text));
    if (at) {
        size_t a = (size_t)(at - all), b = a + strlen(text);
        for (*from = 0; end[*from] <= a; ++*from) {}
        for (*to = *from; end[*to] < b; ++*to) {}
        ++*to;
    }
    wn_status st = !all  ? wn_fail(err, WN_ENOMEM, "--explain: out of memory")
                   : !at ? wn_fail(err, WN_EINVAL,
                                   "--explain: \"%.60s\" is neither a range of positions (100-120) "
                                   "nor in the prompt",
                                   text)
                         : WN_OK;
    wn_free(end);
    wn_free(all);
    return st;
}

wn_status wn_cli_spans(const char *flag, const wn_arg_list *given, const wn_model *m,
                       const int32_t *ids, size_t n, const char *text, size_t len, wn_cli_span *out,
                       wn_err *err)
{
    for (int i = 0, end = 0; i < given->n; i++) {
        int from, to;
        if (!wn_cli_range(given->items[i], &from, &to))
            return wn_fail(err, WN_EINVAL,
                           "%s \"%.40s\": expected bytes of the prompt, as in 100-120", flag,
                           given->items[i]);
        wn_status st = wn_tokens_of_bytes(m, ids, n, text, len, (size_t)from, (size_t)to,
                                          &out[i].from, &out[i].to, err);
        if (st) return wn_fail_prefix(err, st, "%s %s", flag, given->items[i]);
        /* bytes apart, in one token */
        if (i && from >= end) out[i].from = WN_MAX(out[i].from, out[i - 1].to);
        end = to;
    }
    return WN_OK;
}
