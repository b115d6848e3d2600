/* winnow.h - what a program that embeds winnow sees.
 *
 * A model is opened once and shared. An engine owns a fixed amount of memory for the
 * key-value cache and runs any number of sequences over it, several at a time in one
 * pass. A sequence is a text in the making: tokens are fed, wn_engine_step() computes
 * them, logits come out, the caller (or a wn_sampler) picks the next token.
 *
 *     wn_model  --->  wn_engine  --->  wn_seq, wn_seq, ...
 *     weights         cache, threads   tokens, cache pages, logits
 *
 * Conventions. Functions that can fail return a wn_status and fill a wn_err, if given,
 * with one sentence that says what, where and what to do. open/close pairs own
 * resources; close(NULL) is fine. Pointers returned as const are borrowed until the
 * next call on the same object, unless a comment says otherwise. Strings are UTF-8.
 * The library never prints and never exits. Options are structs in which zero means
 * the default. One engine and its sequences belong to one thread at a time; a model
 * may be shared by engines of different threads.
 */
#ifndef WINNOW_H
#define WINNOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WN_VERSION "0.1.0"

/* ---- errors ---------------------------------------------------------------- */

typedef enum {
    WN_OK = 0,
    WN_EINVAL,      /* an argument or option makes no sense */
    WN_ENOMEM,      /* the operating system has no memory */
    WN_EIO,         /* a file or device failed */
    WN_EFORMAT,     /* a file is not what it should be */
    WN_EUNSUPPORTED,/* well-formed, but this build cannot do it */
    WN_EFULL,       /* the cache (or a budget) has no room: a state, not a fault */
    WN_ELIMIT,      /* beyond a promise: context length, --mem */
} wn_status;

typedef struct {
    wn_status status;
    char text[400];                 /* one sentence, NUL-terminated */
} wn_err;

const char *wn_status_name(wn_status s);

#ifdef __cplusplus
}
#endif
#endif
