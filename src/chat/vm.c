/* chat/vm.c - see vm.h. */
#include "chat/vm.h"

#include <stdarg.h>
#include <stdio.h>

void wn_vm_stop(wn_vm *vm, wn_status st, const char *fmt, ...)
{
    char text[sizeof((wn_err *)0)->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    vm->st = wn_fail(vm->err, st, "%s", text);
    longjmp(vm->door, 1);
}

static _Noreturn void fail_at(wn_vm *vm, wn_status st, uint32_t at, const char *text)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at && i < vm->n_source; i++) {
        column = vm->source[i] == '\n' ? 1 : column + ((vm->source[i] & 0xC0) != 0x80);
        line += vm->source[i] == '\n';
    }
    wn_vm_stop(vm, st, "line %zu, column %zu: %s", line, column, text);
}

void wn_vm_limit(wn_vm *vm, const char *fmt, size_t n)
{
    char text[200];
    snprintf(text, sizeof text, fmt, n);
    fail_at(vm, WN_ELIMIT, vm->at, text);
}

void *wn_vm_take(wn_vm *vm, size_t bytes)
{
    if (bytes > vm->arena.size || wn_arena_cost(bytes) > vm->arena.size - vm->arena.used)
        wn_vm_limit(vm, "the template needs more than the %zu MiB of memory it may use",
                    vm->arena.size >> 20);
    wn_vm_spend(vm, 1 + bytes / 256);
    return wn_arena_take(&vm->arena, bytes);
}

void wn_vm_spend(wn_vm *vm, uint64_t n)
{
    if (n > vm->steps)
        wn_vm_fail(vm,
                   "the template does not come to an end: it has used up the steps it may take");
    vm->steps -= n;
}

void wn_vm_enter(wn_vm *vm)
{
    if (++vm->depth > vm->max_depth)
        wn_vm_fail(vm, "nested more than %d levels deep", vm->max_depth);
}

void wn_vm_fail_at(wn_vm *vm, uint32_t at, const char *fmt, ...)
{
    char text[sizeof((wn_err *)0)->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fail_at(vm, WN_EINVAL, at, text);
}

void wn_vm_fail(wn_vm *vm, const char *fmt, ...)
{
    char text[sizeof((wn_err *)0)->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fail_at(vm, WN_EINVAL, vm->at, text);
}
