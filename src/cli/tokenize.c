/* cli/tokenize.c - `winnow tokenize`: what a model makes of a text, and back.
 *
 * Reads all of stdin first (tokens depend on what follows), then prints ids on one line,
 * or a line for each token, or, the other way round, the text of ids. Pieces are shown
 * escaped: they may be control characters or half of a UTF-8 character, and neither
 * belongs on a terminal. Decoded text is written as it is.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/io.h"
#include "cli/models.h"

#include "base/alloc.h"
#include "base/err.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *model;
    bool pieces, decode, parse_special, no_bos;
} options;

/* Printable ASCII as it is, the rest of C's escapes, bytes as \xNN: for a reader who wants
 * to see exactly which bytes a token holds. Whole printable characters stay readable. */
static void print_escaped(const char *s, size_t n)
{
    static const char plain[] = "\n\t\r\\", letter[] = "ntr\\";
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        const char *e = c ? strchr(plain, c) : NULL;
        size_t len = c >= 0xC4 && c < 0xE0   ? 2
                     : c >= 0xE0 && c < 0xF0 ? 3
                     : c >= 0xF0 && c < 0xF5 ? 4
                                             : 0;
        size_t k = 1;
        while (k < len && i + k < n && ((unsigned char)s[i + k] & 0xC0) == 0x80) k++;
        if (e) printf("\\%c", letter[e - plain]);
        else if (c >= 0x20 && c < 0x7F) putchar(c);
        else if (len && k == len) {
            fwrite(s + i, 1, len, stdout);
            i += len - 1;
        } else printf("\\x%02X", c);
    }
}

static int print_ids(const wn_model *m, const options *o, const char *text, size_t n)
{
    unsigned flags = (o->parse_special ? WN_PARSE_SPECIAL : 0) | (o->no_bos ? WN_NO_BOS : 0);
    int32_t *ids;
    size_t n_ids, cap = 0;
    wn_err err;
    if (wn_tokens_from_text(m, text, n, flags, &ids, &n_ids, &err)) {
        fprintf(stderr, "winnow: %s\n", err.text);
        return WN_EXIT_FAILED;
    }
    for (size_t i = 0; i < n_ids; i++) {
        size_t len = wn_token_text(m, ids[i], true, NULL, 0);
        cap = WN_MAX(cap, len);
    }
    char *piece = wn_alloc(cap);
    if (!piece) {
        fputs("winnow tokenize: out of memory\n", stderr);
        wn_tokens_free(ids);
        return WN_EXIT_FAILED;
    }
    for (size_t i = 0; i < n_ids; i++) {
        if (!o->pieces) {
            printf("%s%d", i ? " " : "", ids[i]);
            continue;
        }
        printf("%d\t", ids[i]);
        print_escaped(piece, wn_token_text(m, ids[i], true, piece, cap));
        putchar('\n');
    }
    if (!o->pieces) putchar('\n');
    wn_free(piece);
    wn_tokens_free(ids);
    return WN_EXIT_OK;
}

/* The next id in s, or -1 at the end, or -2 (and a sentence) for what is none. */
static int32_t next_id(const wn_model *m, const char **s, const char *end)
{
    char *after;
    long v;
    while (*s < end && (isspace((unsigned char)**s) || **s == ',')) (*s)++;
    if (*s == end) return -1;
    errno = 0;
    v = strtol(*s, &after, 10);
    if (after == *s || (after < end && !isspace((unsigned char)*after) && *after != ',')) {
        fprintf(stderr,
                "winnow tokenize: what is not an id begins at byte %zu before the end of stdin\n",
                (size_t)(end - *s));
        return -2;
    }
    wn_model_info mi;
    wn_model_get_info(m, &mi);
    if (errno || v < 0 || v >= mi.n_vocab) {
        fprintf(stderr, "winnow tokenize: id %.*s is outside the vocabulary of %d tokens\n",
                (int)WN_MIN(after - *s, (ptrdiff_t)24), *s, mi.n_vocab);
        return -2;
    }
    *s = after;
    return (int32_t)v;
}

static int print_text(const wn_model *m, const options *o, const char *text, size_t n)
{
    wn_text *t;
    wn_err err;
    int32_t id;
    size_t k;
    if (wn_text_open(&t, m, WN_FROM_START | (o->parse_special ? WN_SHOW_SPECIAL : 0), &err)) {
        fprintf(stderr, "winnow tokenize: %s\n", err.text);
        return WN_EXIT_FAILED;
    }
    for (const char *s = text; (id = next_id(m, &s, text + n)) >= 0;) {
        const char *out = wn_text_push(t, id, &k);
        fwrite(out, 1, k, stdout);
    }
    if (id == -1) {
        const char *out = wn_text_end(t, &k);
        fwrite(out, 1, k, stdout);
    }
    wn_text_close(t);
    return id == -1 ? WN_EXIT_OK : WN_EXIT_FAILED;
}

static int work(const options *o)
{
    wn_model *m = NULL;
    wn_err err;
    char *text = NULL;
    size_t n;
    int rc = WN_EXIT_FAILED;
    if (wn_cli_open_model(&m, o->model, &(wn_model_opts){ .vocab_only = true }, &err)) {
        fprintf(stderr, "winnow: %s\n", err.text);
        return rc;
    }
    if (wn_cli_read_all("-", &text, &n, &err)) fprintf(stderr, "winnow tokenize: %s\n", err.text);
    else
        rc = o->decode ? print_text(m, o, text, n) : print_ids(m, o, text, n);
    if (fflush(stdout) || ferror(stdout)) {
        fputs("winnow: the output could not be written\n", stderr);
        rc = WN_EXIT_FAILED;
    }
    wn_free(text);
    wn_model_close(m);
    return rc;
}

const wn_help_page wn_cli_tokenize_page = {
    .command = "tokenize",
    .summary = "text to token ids, and back",
    .usage = "-m MODEL [options] < TEXT",
    .about = "Prints the token ids of the text on stdin, all on one line, with the BOS and EOS "
             "tokens that\n"
             "the model adds. The text is taken as it is: a line end at its end is part of it.",
    .examples = "printf 'Hello world' | winnow tokenize -m models/winnow-demo.gguf --pieces",
};

int wn_cli_tokenize(int argc, char **argv)
{
    options o = { 0 };
    const char *word;
    int n_words;
    bool help;
    const wn_arg table[] = {
        { 'm', "model", WN_ARG_STRING, &o.model, "MODEL",
          "the model file; only its vocabulary is read", 0, 0, 0 },
        { 0, "pieces", WN_ARG_FLAG, &o.pieces, NULL,
          "a line for each token: its id and its bytes, escaped as in C", 0, 0, 0 },
        { 0, "parse-special", WN_ARG_FLAG, &o.parse_special, NULL,
          "special tokens spelled in the text, such as <|im_end|>, become\ntheir ids; with "
          "--decode: special tokens are shown",
          0, 0, 0 },
        { 0, "no-bos", WN_ARG_FLAG, &o.no_bos, NULL,
          "leave out the BOS and EOS tokens that the model adds", 0, 0, 0 },
        { 0, "decode", WN_ARG_FLAG, &o.decode, NULL,
          "the other way round: stdin is ids, separated by spaces, commas\nor line ends; the text "
          "they stand for is printed",
          0, 0, 0 },
    };
    int rc = wn_args_parse(table, (int)WN_COUNT(table), argc, argv, &word, 0, &n_words, &help);
    if (rc) return rc;
    if (help) {
        wn_help(&wn_cli_tokenize_page, table, (int)WN_COUNT(table));
        return WN_EXIT_OK;
    }
    if (!o.model) {
        fputs("winnow tokenize: which model? winnow tokenize --help explains\n", stderr);
        return WN_EXIT_USAGE;
    }
    if (o.decode && (o.pieces || o.no_bos)) {
        fputs("winnow tokenize: --decode gives text; --pieces and --no-bos are about ids\n",
              stderr);
        return WN_EXIT_USAGE;
    }
    return work(&o);
}
