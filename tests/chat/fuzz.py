#!/usr/bin/env python3
"""Random templates and conversations through Jinja and through winnow: what differs?

    tests/chat/fuzz.py [--seed N] [--rounds N] [--spoil-only] [PROGRAM]

PROGRAM (build/tools/chatlines) renders one JSON object a line. Each round takes a template of
tests/chat with a spoiled conversation or (without --spoil-only) strings expressions and blocks together at random, and
compares text with text and failure with failure. Needs jinja2; prints the seed with what it finds.
"""
import json
import os
import random
import subprocess
import sys
import warnings

import oracle

warnings.simplefilter("ignore")

WORDS = ["", "a", "Hello", "naïve 日本語 😀", " x \n", "<|im_end|>", "{{ 1 }}", "a,b,,c", "0", "12", "1.5", "ß'\"\\", "\n\nq\n", "I am a Bc-de"]
TESTS = ["defined", "none", "string", "number", "mapping", "iterable", "sequence", "boolean", "true", "integer", "odd",
         "divisibleby(2)", "in [1, 'a']", "eq 1", "lt 2", "lower", "upper", "callable", "ne 'a'"]
FILTERS = ["trim", "upper", "lower", "title", "capitalize", "length", "string", "list", "first", "last", "tojson", "int", "float",
           "join(',')", "default('d')", "default('d', true)", "sort", "unique|list", "reverse|list", "map('string')|list",
           "select|list", "reject('none')|list", "selectattr('role')|list", "map(attribute='role')|list", "indent", "indent(2, true)",
           "replace('a', 'b')", "dictsort", "items|list", "batch(2)|list", "abs", "round", "round(1)", "wordcount", "sum", "min", "max",
           "tojson(indent=2)", "tojson(sort_keys=true)", "groupby('role')|list", "string|length", "safe", "e", "slice(2)|list",
           "truncate(5)", "center(7)", "attr('x')", "count", "tojson(ensure_ascii=true)", "join", "urlencode", "wordcount", "trim('a')"]
METHODS = ["upper()", "split(',')", "split()", "strip()", "lstrip('a')", "title()", "startswith('a')", "endswith('c')", "replace('a', '')",
           "items()|list", "keys()|list", "get('a', 1)", "find('a')", "splitlines()", "join(['a', 'b'])", "count('a')", "rsplit(',', 1)",
           "capitalize()", "swapcase()", "partition(',')", "zfill(3)", "isdigit()", "index('a')", "removeprefix('a')", "split('a', 1)[-1]"]
BINARY = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", "in", "not in", "and", "or", "**"]


def value(r, depth=0):
    k = r.randrange(10 if depth < 3 else 7)
    if k == 7:
        return [value(r, depth + 1) for _ in range(r.randrange(4))]
    if k >= 8:
        return {r.choice(["a", "b", "role", "content", "items", "é"]): value(r, depth + 1) for _ in range(r.randrange(4))}
    return [None, True, r.randrange(-3, 5), r.choice([0.0, 1.5, -2.25, 1e20]), False][k] if k < 5 else r.choice(WORDS)


def literal(r):
    k = r.randrange(9)
    if k < 3:
        return repr(r.choice(WORDS))
    if k < 5:
        return str(r.randrange(-2, 6))
    return r.choice(["none", "true", "1.5", "[]", "[1, 'a', 2]", "{'a': 1, 'b': [2]}", "(1, 2)", "range(3)", "[[1, 2], [3]]", "2.0"])


def expr(r, depth=0):
    k = r.randrange(14) if depth < 4 else r.randrange(5)
    if k < 2:
        return literal(r)
    if k < 5:
        return r.choice(["x", "y", "z", "w", "m", "messages", "missing", "x.a", "m['b']", "messages[0]", "messages[-1].content", "z[0]"])
    a = expr(r, depth + 1)
    if k < 8:
        return f"({a})|{r.choice(FILTERS)}"
    if k == 8:
        return f"(({a}) is {r.choice(['', 'not '])}{r.choice(TESTS)})"
    if k == 9:
        return f"({a}).{r.choice(METHODS)}"
    if k == 10:
        return f"({a})[{r.choice(['0', '-1', '1:', ':-1', '::-1', '::2', '-2:', chr(39) + 'a' + chr(39), '2:0:-1', ':2'])}]"
    if k == 11:
        return f"({a} if {expr(r, depth + 1)} else {expr(r, depth + 1)})"
    if k == 12:
        return f"(not {a})" if r.random() < .5 else f"(-({a}))"
    return f"({a} {r.choice(BINARY)} {expr(r, depth + 1)})"


def space(r):
    return r.choice(["", "", " ", "\n", "  \n  ", "\t", "a\n", " b "])


def tag(r, inside):
    return space(r) + "{%" + r.choice(["", "", "-", "+"]) + " " + inside + " " + r.choice(["", "", "-"]) + "%}" + space(r)


def block(r, depth=0):
    k = r.randrange(9) if depth < 3 else 0
    inner = lambda: "".join(block(r, depth + 1) for _ in range(r.randrange(3)))
    if k < 3:
        return space(r) + "{{" + r.choice(["", "-"]) + " " + expr(r) + " " + r.choice(["", "-"]) + "}}" + space(r)
    if k == 3:
        return tag(r, "if " + expr(r)) + inner() + (tag(r, "else") + inner() if r.random() < .5 else "") + tag(r, "endif")
    if k == 4:
        return (tag(r, f"for {r.choice(['x', 'y', 'k, v'])} in {expr(r)}" + (" if " + expr(r) if r.random() < .2 else "")) + inner()
                + r.choice(["", "{{ loop.index }}", "{{ loop.last }}", "{% if loop.first %}{% continue %}{% endif %}"]) + inner() + tag(r, "endfor"))
    if k == 5:
        return tag(r, f"set {r.choice(['x', 'y', 'w'])} = {expr(r)}")
    if k == 6:
        return tag(r, "set y") + inner() + tag(r, "endset")
    if k == 7:
        return tag(r, "macro f(x, y=1)") + inner() + tag(r, "endmacro") + "{{ f(" + expr(r, 3) + ") }}"
    return tag(r, "filter " + r.choice(["upper", "trim", "replace('a', 'b')", "indent(2)"])) + inner() + tag(r, "endfilter")


def spoil(r, v):
    """A conversation with something changed, missing or added in it."""
    if isinstance(v, dict) and v and r.random() < .9:
        k = r.choice(list(v))
        out = dict(v)
        if r.random() < .15:
            del out[k]
        else:
            out[k] = spoil(r, v[k])
        return out
    if isinstance(v, list) and v and r.random() < .9:
        i = r.randrange(len(v))
        return v[:i] + ([] if r.random() < .1 else [spoil(r, v[i])] * r.choice([1, 1, 1, 2])) + v[i + 1:]
    return value(r, 1)


def main():
    args = sys.argv[1:]
    take = lambda name, default: int(args.pop(args.index(name) + 1)) if name in args else default
    spoil_only = "--spoil-only" in args
    seed, rounds = take("--seed", 1), take("--rounds", 2000)
    program = next((a for a in args if not a.startswith("--")), "build/tools/chatlines")
    env = oracle.environment()
    r = random.Random(seed)
    known = [(t, v) for _, t, v in oracle.cases()]
    tasks = []
    for _ in range(rounds):
        t, v = r.choice(known)
        if spoil_only or r.random() < .5:
            for _ in range(r.randrange(1, 4)):
                v = w if isinstance(w := spoil(r, v), dict) else v
        else:
            t, v = "".join(block(r) for _ in range(r.randrange(1, 4))), {"x": value(r), "m": value(r), "z": value(r), "messages": [{"role": "user", "content": r.choice(WORDS)}]}
        tasks.append((t, v))
    lines = "".join(json.dumps({"template": t, "vars": v}) + "\n" for t, v in tasks)
    p = subprocess.run([program], input=lines, capture_output=True, text=True, env=dict(os.environ, TZ="UTC"))
    got = [json.loads(line) for line in p.stdout.split("\n")[:-1]]
    wrong = 0
    if len(got) != len(tasks):
        print(f"seed {seed}: the program stopped at {tasks[len(got)]!r}\n{p.stderr[:4000]}")
        wrong += 1
    texts = 0
    for (t, v), g in zip(tasks, got):
        want = oracle.render(env, t, v)
        texts += want is not None
        if g.get("text") != want and not ignored(t, v, g, want):
            wrong += 1
            if wrong <= 20:
                print(f"{t!r}\n  vars   {json.dumps(v)}\n  jinja2 {want!r}\n  winnow {g}")
    print(f"seed {seed}: {len(tasks)} rounds, {texts} with text, {wrong} differ")
    return 1 if wrong else 0


def ignored(t, v, got, want):
    """Where Jinja shows its host: addresses, iterators, integers of any size, constants folded
    into something that running them is not (slices of numbers)."""
    def odd(s):
        return s is not None and any(w in s for w in ("<generator", "<built-in", " object at 0x", "dict_", "range(", "<function", "<bound", "<class"))
    return odd(want) or "64-bit" in got.get("err", "") or "cannot be sliced" in got.get("err", "")


if __name__ == "__main__":
    sys.exit(main())
