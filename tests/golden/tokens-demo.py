#!/usr/bin/env python3
"""Makes tests/golden/tokens-demo.ids: what the demo vocabulary's ids must be.

Independent of the C code: reads the GGUF by itself, cuts with Python's `regex` module by the
pattern the vocabulary was trained with, and merges the slow way (find the best pair, join it,
start over). Texts are in tokens-demo.txt, separated by a line of its own.

    python3 tests/golden/tokens-demo.py models/winnow-demo.gguf
"""
import os, struct, sys
import regex

PIECES = regex.compile(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
                       r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SEPARATOR = "\n__winnow_text__\n"


def read_metadata(path):
    data, at = open(path, "rb").read(), 4

    def number(fmt):
        nonlocal at
        v = struct.unpack_from("<" + fmt, data, at)[0]
        at += struct.calcsize("<" + fmt)
        return v

    def value(kind):
        nonlocal at
        if kind == 8:
            n = number("Q")
            at += n
            return data[at - n:at].decode()
        if kind == 9:
            item, n = number("I"), number("Q")
            return [value(item) for _ in range(n)]
        return number({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q",
                       11: "q", 12: "d"}[kind])

    number("I"), number("Q")
    return {value(8): value(number("I")) for _ in range(number("Q"))}


def alphabet():
    same = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in same]
    return {b: chr(b) for b in same} | {b: chr(0x100 + i) for i, b in enumerate(rest)}


def encode(text, ids, rank, spell):
    out = []
    for piece in PIECES.findall(text):
        parts = [spell[b] for b in piece.encode()]
        while len(parts) > 1:
            best = min((rank.get((a, b), 1 << 30), i)
                       for i, (a, b) in enumerate(zip(parts, parts[1:])))
            if best[0] == 1 << 30:
                break
            i = best[1]
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        out += [ids[p] for p in parts]
    return out


kv = read_metadata(sys.argv[1])
ids = {t: i for i, t in enumerate(kv["tokenizer.ggml.tokens"])}
rank = {tuple(m.split(" ")): i for i, m in enumerate(kv["tokenizer.ggml.merges"])}
here = os.path.dirname(os.path.abspath(__file__))
texts = open(f"{here}/tokens-demo.txt", encoding="utf-8", newline="").read().split(SEPARATOR)
with open(f"{here}/tokens-demo.ids", "w") as f:
    for t in texts:
        f.write(" ".join(map(str, encode(t, ids, rank, alphabet()))) + "\n")
