/* chat/tests.c - what can stand after `is`. */
#include "chat/run.h"

#include <string.h>

#define TEST(name, condition) WN_BUILTIN(is_##name) { return wn_val_bool(condition); }

static bool callable(wn_value v)
{
    return v.kind == WN_FUNC || v.kind == WN_METHOD || v.kind == WN_MACRO || v.kind == WN_LOOP ||
           v.kind == WN_UNDEF;          /* calling it fails, but Python says it could be called */
}
static bool iterable(wn_value v)
{
    return v.kind == WN_STR || v.kind == WN_DICT || wn_is_list(v) || v.kind == WN_UNDEF ||
           v.kind == WN_LOOP;
}
/* Has a length and items by number or key: an iterator has not. */
static bool sequence(wn_value v) { return (iterable(v) && !v.lazy && v.kind != WN_LOOP); }

static bool divides(wn_vm *vm, wn_value v, wn_value by)
{
    wn_value m = wn_binary(vm, '%', v, by);
    return !wn_val_truth(m);
}

static int order(wn_vm *vm, wn_value x, wn_value y, const char *op)
{
    return wn_val_compare(vm, x, y, op);
}

/* All cased letters are of that case, and there is one. */
static bool cased(wn_vm *vm, wn_value v, int how)
{
    const wn_string *s = wn_val_text(vm, v);
    return wn_string_same(s, wn_string_case(vm, s, how)) &&
           !wn_string_same(s, wn_string_case(vm, s, 's'));
}

TEST(defined, self.kind != WN_UNDEF)
TEST(undefined, self.kind == WN_UNDEF)
TEST(none, self.kind == WN_NONE)
TEST(boolean, self.kind == WN_BOOL)
TEST(true, self.kind == WN_BOOL && self.b)
TEST(false, self.kind == WN_BOOL && !self.b)
TEST(integer, self.kind == WN_INT)
TEST(float, self.kind == WN_FLOAT)
TEST(number, wn_is_number(self))
TEST(string, self.kind == WN_STR)
TEST(mapping, self.kind == WN_DICT)
TEST(iterable, iterable(self))
TEST(sequence, sequence(self))
TEST(callable, callable(self))
TEST(lower, cased(vm, self, 'l'))
TEST(upper, cased(vm, self, 'u'))
TEST(odd, divides(vm, wn_binary(vm, '+', self, wn_val_int(1)), wn_val_int(2)))
TEST(even, divides(vm, self, wn_val_int(2)))
TEST(divisibleby, divides(vm, self, a[0]))
TEST(eq, wn_val_equal(vm, self, a[0]))
TEST(ne, !wn_val_equal(vm, self, a[0]))
TEST(lt, order(vm, self, a[0], "<") < 0)
TEST(le, order(vm, self, a[0], "<=") <= 0)
TEST(gt, order(vm, self, a[0], ">") > 0)
TEST(ge, order(vm, self, a[0], ">=") >= 0)
TEST(in, wn_val_in(vm, self, a[0]))
TEST(escaped, false)
TEST(filter, self.kind == WN_STR && wn_filter_find(self.s))
TEST(test, self.kind == WN_STR && wn_test_find(self.s))

/* Not Jinja's, but other engines' and some templates': as the methods of strings. */
TEST(startingwith,
     wn_want_str(vm, self, "what is tested")->n >= wn_want_str(vm, a[0], "the beginning")->n &&
         !memcmp(self.s->p, a[0].s->p, a[0].s->n))
TEST(endingwith,
     wn_want_str(vm, self, "what is tested")->n >= wn_want_str(vm, a[0], "the end")->n &&
         !memcmp(self.s->p + self.s->n - a[0].s->n, a[0].s->p, a[0].s->n))

WN_BUILTIN(is_sameas)
{
    return wn_val_bool(self.kind == a[0].kind &&
                       (self.kind == WN_STR ? self.s == a[0].s : wn_val_equal(vm, self, a[0])));
}

const wn_builtin *wn_test_find(const wn_string *name)
{
    static const wn_builtin table[] = {
        { "defined", "", 0, is_defined },
        { "undefined", "", 0, is_undefined },
        { "none", "", 0, is_none },
        { "boolean", "", 0, is_boolean },
        { "true", "", 0, is_true },
        { "false", "", 0, is_false },
        { "integer", "", 0, is_integer },
        { "float", "", 0, is_float },
        { "number", "", 0, is_number },
        { "string", "", 0, is_string },
        { "mapping", "", 0, is_mapping },
        { "iterable", "", 0, is_iterable },
        { "sequence", "", 0, is_sequence },
        { "callable", "", 0, is_callable },
        { "lower", "", 0, is_lower },
        { "upper", "", 0, is_upper },
        { "odd", "", 0, is_odd },
        { "even", "", 0, is_even },
        { "divisibleby", "num", 1, is_divisibleby },
        { "sameas", "other", 1, is_sameas },
        { "escaped", "", 0, is_escaped },
        { "filter", "", 0, is_filter },
        { "test", "", 0, is_test },
        { "in", "seq", 1, is_in },
        { "eq", "other", 1, is_eq },
        { "equalto", "other", 1, is_eq },
        { "==", "other", 1, is_eq },
        { "ne", "other", 1, is_ne },
        { "!=", "other", 1, is_ne },
        { "lt", "other", 1, is_lt },
        { "lessthan", "other", 1, is_lt },
        { "<", "other", 1, is_lt },
        { "le", "other", 1, is_le },
        { "<=", "other", 1, is_le },
        { "gt", "other", 1, is_gt },
        { "greaterthan", "other", 1, is_gt },
        { ">", "other", 1, is_gt },
        { "ge", "other", 1, is_ge },
        { ">=", "other", 1, is_ge },
        { "startingwith", "prefix", 1, is_startingwith },
        { "endingwith", "suffix", 1, is_endingwith },
    };
    return wn_builtin_find(table, WN_COUNT(table), name);
}
