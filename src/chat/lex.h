/* chat/lex.h - a template's source as tokens.
 *
 * Outside of tags everything is text, subject to the rules of whitespace that chat templates
 * are written for (trim_blocks and lstrip_blocks on, as transformers sets them):
 *
 *     {%- ...  {{- ...  {#- ...     white space before the tag goes
 *     ... -%}  ... -}}  ... -#}     white space after it goes
 *     {% ...  {# ...                blanks before it go if nothing else is in the line ({%+ keeps them)
 *     ... %}  ... #}                one line feed after it goes (+%} keeps it)
 *
 * One line feed at the very end of the source goes, and \r\n and \r count as \n.
 */
#ifndef WN_CHAT_LEX_H
#define WN_CHAT_LEX_H

#include "chat/value.h"

typedef enum {
    WN_LEX_END,
    WN_LEX_TEXT,
    WN_LEX_OUTPUT /* {{ */,
    WN_LEX_OUTPUT_END,
    WN_LEX_BLOCK /* {% */,
    WN_LEX_BLOCK_END,
    WN_LEX_NAME,
    WN_LEX_STRING,
    WN_LEX_INT,
    WN_LEX_FLOAT,
    WN_LEX_OP
} wn_lex_kind;

typedef struct {
    wn_lex_kind kind;
    uint32_t at;                        /* byte of the source */
    const wn_string *s;                 /* text, name, the characters of a string, operator ("==",
                                           "(") */
    int64_t i;
    double f;
} wn_lexeme;

typedef struct {
    wn_vm *vm;
    const char *p;                      /* the source, line ends made \n */
    size_t n, at;
    bool inside;                        /* of a tag */
    bool line_start;                    /* the text at hand begins a line */
    bool output;                        /* the tag is {{ */
    char open[200];                     /* brackets that wait for their end: "}}" may end two
                                           dicts */
    int n_open;
} wn_lexer;

void wn_lex_begin(wn_lexer *lx, wn_vm *vm, const char *source, size_t n);
wn_lexeme wn_lex_next(wn_lexer *lx);

#endif
