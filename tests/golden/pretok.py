#!/usr/bin/env python3
"""Makes tests/golden/pretok.cuts: where each pre-tokenizer pattern cuts the texts in
tokens-demo.txt and a few more.

Independent of the C code: Python's `regex` module (set operations, so V1) and the patterns as
the models' own tokenizer.json files have them, stacked as their Split steps are.

    python3 tests/golden/pretok.py
"""
import os
import regex

C = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
U, L = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
UH, LH = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
LEAD, END = r"[^\r\n\p{L}\p{N}]?", r"\s*[\r\n]+|\s+(?!\S)|\s+"
ASCII_SIGN = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{\|}\~][A-Za-z]+"""
DEEPSEEK = ASCII_SIGN + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + END
KANA = r"[一-龥぀-ゟ゠-ヿ]+"
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"

PATTERNS = {
    "default": [r"[\p{P}\$\+<=>\^\~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
    "gpt-2": [GPT2],
    "llama-bpe": [C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + END],
    "qwen2": [C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + END],
    "qwen35": [C + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + END],
    "minicpm5": [r"\p{N}{1,3}", C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|" + END],
    "laguna": [r"[^\n]+|[\n]+", C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + END],
    "ufakzeka": [r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + END],
    "jais-2": [C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|"
               r"\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|"
               r"\s{1,2}(?!\S)|\s{1}"],
    "seed-coder": [C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|" + END],
    "bailingmoe": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|"
                   r"\s+(?!\S)|\s+"],
    "exaone-moe": [C + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|"
                   r"\s*[\r\n]|\s+(?!\S)|\s+"],
    "gpt-4o": [LEAD + U + "*" + L + "+" + C + "?|" + LEAD + U + "+" + L + "*" + C +
               r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + END],
    "tekken": [LEAD + U + "*" + L + "+|" + LEAD + U + "+" + L + r"*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + END],
    "kimi-k2": [r"[\p{Han}]+|" + LEAD + UH + "*" + LH + "+" + C + "?|" + LEAD + UH + "+" + LH + "*" + C +
                r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + END],
    "youtu": ["[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
              LEAD + U + "*" + L + "+" + C + "?|" + LEAD + U + "+" + L + "*" + C +
              r"?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + END],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", KANA, DEEPSEEK],
    "spark2_5": [r"\p{N}{1,3}", KANA, ASCII_SIGN + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|"
                 r"\s+(?!\S)|\s+", r"\p{N}"],
    "falcon": [r"[\p{P}\$\+<=>\^\~\|`]+", GPT2, "[0-9][0-9][0-9]"],
    "starcoder": [r"\p{N}", GPT2],
    "bloom": [r" ?[^(\s\|.,!?…。，、।۔،)]+"],
    "viking": [r" ?[^(\s\|.,!?…。，、।۔،)]+", r"\p{N}"],
    "chameleon": ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}",
                  r"[\p{P}!-/:-@\[-`{-\~]", GPT2],
}
MORE = ["camelCaseWords HTTPServer's iPhone'll McDonald O'Neill ÉCOLEfrançaise", "word/path/\nnext // \n\n/x",
        "日本語カタカナひらがな漢字abc한국어 ㄅㄆ「引用」。、 ！", "12345678 1.234,56 ½ Ⅷ ١٢٣٤ ３４",
        "हिन्दी में लिखा हुआ।  বাংলা، اردو۔ ไทยภาษา", "a  b   c    d     e      f" + " " * 700 + "g\t\t\n \n  \n",
        "x=f(y)+2; // `code` <b>!</b> $100 ~~ ^_^ |a|", "<sentinel:12>IMGIMGABZ IMGIMGZ", "don't DON'T we've 'S's",
        "Ελληνικά Русский Հայերեն ქართული ǅ ʔ ﬁ", "e\u0301tude \u0301 \u00a0\u2003x\u0085y"]


def split(pieces, pattern):
    out = []
    for piece in pieces:
        at = 0
        for m in pattern.finditer(piece):
            if m.start() > at:
                out.append(piece[at:m.start()])
            if m.end() > m.start():
                out.append(m.group())
            at = m.end()
        if at < len(piece):
            out.append(piece[at:])
    return out


here = os.path.dirname(os.path.abspath(__file__))
texts = open(os.path.join(here, "tokens-demo.txt"), encoding="utf-8", newline="").read().split("\n__winnow_text__\n")
with open(os.path.join(here, "pretok.txt"), "w", encoding="utf-8", newline="") as f:
    f.write("\n__winnow_text__\n".join(texts + MORE))
with open(os.path.join(here, "pretok.cuts"), "w") as f:
    for name, steps in PATTERNS.items():
        f.write(name + "\n")
        for text in texts + MORE:
            pieces = [text]
            for s in steps:
                pieces = split(pieces, regex.compile(s, regex.V1))
            f.write(" ".join(str(len(p.encode())) for p in pieces) + "\n")
