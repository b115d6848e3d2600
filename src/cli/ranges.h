/* cli/ranges.h - parts of a prompt, named on a command line. */
#ifndef WN_CLI_RANGES_H
#define WN_CLI_RANGES_H

#include "base/err.h"
#include "cli/args.h"
#include "winnow.h"

/* "100-120" or "100": [*from, *to), the last named one inside. */
bool wn_cli_range(const char *s, int *from, int *to);
/* The tokens of the prompt that spell the first occurrence of a text. */
wn_status wn_cli_find_text(const wn_model *m, const int32_t *ids, size_t n, const char *text,
                           int *from, int *to, wn_err *err);

/* Tokens [from, to) of each range of bytes that was given by a flag; out has given->max of them. A
 * token that reaches from one range into the next belongs to the first. */
typedef struct { int from, to; } wn_cli_span;
wn_status wn_cli_spans(const char *flag, const wn_arg_list *given, const wn_model *m,
                       const int32_t *ids, size_t n, const char *text, size_t len, wn_cli_span *out,
                       wn_err *err);

#endif
