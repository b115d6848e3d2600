/* eval/phrases.h - what a template and a haystack hold, for the files that make cases.
 *
 * A template is JSON: markup (how turns are set apart), lists of words, and for each task
 * its phrases. It may inherit a compiled-in family and say only what differs. Loading is
 * strict: a key that nobody reads, a phrase that misses a placeholder it needs and one
 * with a placeholder nobody fills are errors, so that the makers of cases can take every
 * phrase for granted. In a phrase {word} stands for
 *
 *     {key}, {value}, ...      what the task fills in; phrases_grammar.c has the table
 *     {adj}, {adj2}            a word of the list "adj", drawn; another one of it, drawn
 *     {d5}                     5 digits, drawn
 *
 * and draws once within one fact: {adj} in a statement and in its question is one word.
 * Braces around anything but lower-case letters and digits are plain text.
 *
 * A haystack is prose cut at sentence borders. Pieces are numbered in the order of the
 * text and begin where the last one ended, with the white space between them.
 */
#ifndef WN_EVAL_PHRASES_H
#define WN_EVAL_PHRASES_H

#include "eval/task.h"

typedef struct {
    const char *system_prefix, *system_text, *system_suffix;
    const char *user_prefix, *user_suffix, *assistant_prefix, *assistant_suffix;
    const char *question;               /* between a text and the question about it, in one
                                           message */
    const char *next_question;          /* before a question that opens a message */
    const char *stop;                   /* "": the model's end token alone */
    const char *begin;                  /* before everything; "" in templates */
    bool tight;                         /* no space between assistant_prefix and the answer,
                                           whatever that ends with */
} wn_markup;

typedef struct { const char *statement, *question, *lead, *answer; } wn_kind;

typedef struct {
    const char *text;                   /* borrowed; begins with the white space before it */
    size_t n;
    size_t n_space;                     /* of that, white space */
} wn_piece;

/* Template and haystack from memory, as wn_phrases_open() does from files: names for errors.
 * Bytes are borrowed until it returns (the template) and until close (the haystack). */
wn_status wn_phrases_parse(wn_phrases **out, const char *json, size_t n_json, const char *name,
                           const char *haystack, size_t n_haystack, const char *haystack_name,
                           wn_err *err);

/* "demo", "base", "chat": the i-th compiled-in family; NULL beyond the last. */
const char *wn_phrases_family(int i);

/* What a task's section says; these keys exist, phrases_grammar.c has seen to it. */
const char *wn_phrases_text(const wn_phrases *p, const char *task, const char *key);
/* NULL where the section leaves out an optional phrase ("ask", "stop"). */
const char *wn_phrases_optional(const wn_phrases *p, const char *task, const char *key);
int wn_phrases_number(const wn_phrases *p, const char *task, const char *key);

int wn_phrases_n_kinds(const wn_phrases *p);    /* of fact, of the task "questions" */
wn_kind wn_phrases_kind(const wn_phrases *p, int i);
/* 0: no such list */
int wn_phrases_n_words(const wn_phrases *p, const char *list, size_t n_list);
const char *wn_phrases_word(const wn_phrases *p, const char *list, size_t n_list, int i);

/* In place of the template's, for texts and conversations; copied. */
wn_status wn_phrases_set_markup(wn_phrases *p, const wn_markup *m, wn_err *err);
const wn_markup *wn_phrases_markup(const wn_phrases *p);
const wn_markup *wn_phrases_talk(const wn_phrases *p);  /* of conversations: the same unless the
                                                           template says */

int wn_phrases_n_pieces(const wn_phrases *p);
wn_piece wn_phrases_piece(const wn_phrases *p, int i);
/* Whether the haystack holds this as a whole word (or words). */
bool wn_phrases_in_haystack(const wn_phrases *p, const char *word);

/* A placeholder at s ("{...}")? Its name is s + 1, *n long; NULL text is not one. */
bool wn_phrases_placeholder(const char *s, size_t *n);
/* {d5}: 5; 0 for what is not a number of digits. */
int wn_phrases_digits(const char *name, size_t n);

/* The first whole-word occurrence of word in text at or after from, or NULL. Letters are
 * compared without case when fold is set. Shared by the makers of cases, who keep answers
 * out of the rest of the text, and by the scores. */
const char *wn_word_find(const char *text, const char *from, const char *end, const char *word,
                         bool fold);

#endif
