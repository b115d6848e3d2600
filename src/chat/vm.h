/* chat/vm.h - the small machine that compiles and renders one template: memory, limits, failure.
 *
 * A template comes with a model file from anywhere, so it runs inside walls. Everything it makes
 * lies in one arena of a fixed size; each thing it does is paid for from a count of steps (long
 * strings and lists cost more, by their length); what it writes and how deep it calls are
 * bounded. It reaches no file, no environment, no network; the time of day is the only thing it
 * can learn of the host (strftime_now).
 *
 * Failure is a jump, as in Lua: wn_vm_fail() does not return, and the door (template.c) that
 * called setjmp turns it into a status and a sentence with line and column. That is sound because
 * nothing but the arena is held while the machine runs: no malloc, no file, no lock. It keeps the
 * evaluator readable where nearly every line could fail.
 */
#ifndef WN_CHAT_VM_H
#define WN_CHAT_VM_H

#include "base/arena.h"

#include <setjmp.h>

typedef struct wn_template wn_template;
typedef struct wn_scope wn_scope;
typedef struct wn_text_buf wn_text_buf;
typedef struct wn_dict wn_dict;

typedef struct wn_vm {
    wn_arena arena;
    jmp_buf door;
    wn_status st;
    wn_err *err;
    const char *source;                 /* for line and column, and what a failure says */
    size_t n_source;
    uint32_t at;                        /* where in the source we are */
    uint64_t steps;                     /* left */
    int depth, max_depth;
    /* rendering only */
    wn_text_buf *out;                   /* where text goes: the page, or a capture inside it */
    wn_text_buf *page;
    size_t max_out;
    wn_scope *scope;
    wn_dict *context;                   /* what the caller gave */
    int64_t now;                        /* seconds since the epoch; 0: ask the clock */
} wn_vm;

/* Uninitialised memory of the arena; fails when the template's share is used up. */
void *wn_vm_take(wn_vm *vm, size_t bytes);
#define wn_vm_array(vm, T, n) ((T *)wn_vm_take((vm), sizeof(T) * (size_t)(n)))

/* Pays for n units of work; fails when the template has had its share. */
void wn_vm_spend(wn_vm *vm, uint64_t n);

/* One level deeper; failure unwinds by itself, everything else leaves what it entered. */
void wn_vm_enter(wn_vm *vm);
static inline void wn_vm_leave(wn_vm *vm) { vm->depth--; }

/* Ends the run: WN_EINVAL with "line L, column C: " before the sentence. */
_Noreturn void wn_vm_fail(wn_vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void wn_vm_fail_at(wn_vm *vm, uint32_t at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Ends it with WN_ELIMIT, line and column; fmt takes one size_t. */
_Noreturn void wn_vm_limit(wn_vm *vm, const char *fmt, size_t n)
    __attribute__((format(printf, 2, 0)));
/* Ends the run with a status and nothing added to the sentence. */
_Noreturn void wn_vm_stop(wn_vm *vm, wn_status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
