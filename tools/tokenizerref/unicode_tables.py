"""Records how the reference tokenizer treats every Unicode code point.

Usage:  python tools/tokenizerref/unicode_tables.py OUT_GO OUT_DIR && gofmt -w OUT_GO
        (OUT_GO is pretrained/tokenizer/zz_unicode_gen.go; OUT_DIR gets codepoints.txt for the tests)
Needs:  pip install tokenizers==0.23.3

The Rust crates behind the reference use Unicode tables of several ages (NFD of Unicode 9, categories
of an older one, case mapping and regular expressions of the compiler's), so no single table of Go's
agrees with them, and Go's own change with its release. This script asks the reference itself, one
code point at a time, and writes what it answered as range tables.
"""

import sys
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

ALL = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def bert(**on):
    opts = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    opts.update(on)
    return normalizers.BertNormalizer(**opts)


def combining_classes():
    """ccc of every code point, found by which marks NFD swaps it with."""
    # A mark for each class: the first one that the reference too sorts before U+0345, the only one of class 240.
    import unicodedata

    nfd, last = normalizers.NFD(), "\u0345"
    marks = {240: last}
    for c in ALL:
        k, s = unicodedata.combining(chr(c)), chr(c)
        if k and k not in marks and nfd.normalize_str(s) == s and nfd.normalize_str(last + s) != last + s:
            marks[k] = s
    known = sorted(marks)
    order = [marks[k] for k in known]
    out = {}
    for c in ALL:
        s = chr(c)
        if nfd.normalize_str(s) != s:
            continue  # decomposed: never ordered as itself
        if c in (ord(marks[240]),):
            out[c] = 240
            continue
        swapped_after_last = nfd.normalize_str(order[-1] + s) != order[-1] + s
        swapped_before_first = nfd.normalize_str(s + order[0]) != s + order[0]
        if not swapped_after_last and not swapped_before_first:
            continue  # class 0
        # classes of `order` that sort after s: those m for which m+s is reordered
        lo = sum(1 for m in order if nfd.normalize_str(s + m) != s + m)  # classes below s
        hi = sum(1 for m in order if nfd.normalize_str(m + s) != m + s)  # classes above s
        assert lo + hi == len(known) - 1, (hex(c), lo, hi)
        out[c] = known[lo]
    return out


def probe():
    clean, cjk, strip, lower = bert(clean_text=True), bert(handle_chinese_chars=True), bert(strip_accents=True), bert(lowercase=True)
    nfd, pre = normalizers.NFD(), pre_tokenizers.BertPreTokenizer()
    t = {k: set() for k in ("drop", "space", "cjk", "mark", "presplit", "punct", "word", "regexspace")}
    low, dec = {}, {}
    for c in ALL:
        s = chr(c)
        r = clean.normalize_str("a" + s + "b")
        if r == "ab":
            t["drop"].add(c)
        elif r == "a b":
            t["space"].add(c)
        else:
            assert r == "a" + s + "b", hex(c)
        r = cjk.normalize_str("a" + s + "b")
        if r == "a " + s + " b":
            t["cjk"].add(c)
        else:
            assert r == "a" + s + "b", hex(c)
        d = nfd.normalize_str(s)
        if d != s:
            dec[c] = d
        elif strip.normalize_str("a" + s) == "a":
            t["mark"].add(c)
        r = lower.normalize_str("a" + s)[1:]
        if r != s:
            low[c] = r
        pieces = [p for p, _ in pre.pre_tokenize_str("a" + s + "b")]
        if len(pieces) == 3:
            assert pieces == ["a", s, "b"], hex(c)
            t["punct"].add(c)
        elif len(pieces) == 2:
            assert pieces == ["a", "b"], hex(c)
            t["presplit"].add(c)
        else:
            assert pieces == ["a" + s + "b"], hex(c)
    tok = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    tok.add_tokens([AddedToken("\u0001", single_word=True, normalized=False), AddedToken("\u0002", lstrip=True, normalized=False)])
    word, space = tok.token_to_id("\u0001"), tok.token_to_id("\u0002")
    for c in ALL:
        if c in (1, 2):
            continue
        if tok.encode(chr(c) + "\u0001").ids[-1] != word:
            t["word"].add(c)
        e = tok.encode("a" + chr(c) + "\u0002")
        assert e.ids[-1] == space
        if e.offsets[-1][0] == 1:
            t["regexspace"].add(c)
    return t, low, dec


def ranges(values):
    out = []
    for c in sorted(values):
        # the surrogate gap is no gap: no string holds one
        if out and (out[-1][1] + 1 == c or (out[-1][1] == 0xD7FF and c == 0xE000)):
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def lower_runs(low):
    """(lo, hi, stride, delta) for one-to-one mappings; the rest as full strings."""
    runs, full = [], {}
    for c in sorted(low):
        s = low[c]
        if len(s) != 1:
            full[c] = s
            continue
        d = ord(s) - c
        if runs and runs[-1][3] == d:
            lo, hi, stride, _ = runs[-1]
            step = c - hi
            if (lo == hi and step in (1, 2)) or step == stride:
                runs[-1] = (lo, c, step, d)
                continue
        runs.append((c, c, 1, d))
    return runs, full


def esc(s):
    return "".join("\\u%04x" % ord(c) if ord(c) < 0x10000 else "\\U%08x" % ord(c) for c in s)


def wrap(items, per):
    return "\n".join("\t" + " ".join(items[i : i + per]) for i in range(0, len(items), per))


def main():
    out_go, out_dir = sys.argv[1:3]
    t, low, dec = probe()
    ccc = combining_classes()
    g = ["// Code generated by tools/tokenizerref/unicode_tables.py from tokenizers 0.23.3. DO NOT EDIT.", "", "package tokenizer", ""]
    docs = {
        "drop": "removed by BertNormalizer's clean_text",
        "space": "mapped to a space by BertNormalizer's clean_text",
        "cjk": "set apart by BertNormalizer's handle_chinese_chars",
        "mark": "nonspacing marks that strip_accents removes after NFD",
        "presplit": "where BertPreTokenizer splits, removing them",
        "punct": "isolated by BertPreTokenizer",
        "word": "word characters of an added token's single_word rule",
        "regexspace": "spaces of an added token's lstrip and rstrip",
    }
    for k, doc in docs.items():
        g += ["// %sRanges: %s." % (k, doc), "var %sRanges = []runeRange{" % k, wrap(["{%#x, %#x}," % tuple(r) for r in ranges(t[k])], 6), "}", ""]
    groups = {}
    for c, k in ccc.items():
        groups.setdefault(k, []).append(c)
    items = sorted((r[0], r[1], k) for k, cs in groups.items() for r in ranges(cs))
    g += ["// cccRanges: canonical combining classes other than 0.", "var cccRanges = []classRange{", wrap(["{%#x, %#x, %d}," % i for i in items], 5), "}", ""]
    runs, full = lower_runs(low)
    g += ["// lowerRuns: lowercase mappings to one code point.", "var lowerRuns = []caseRun{", wrap(["{%#x, %#x, %d, %d}," % r for r in runs], 5), "}", ""]
    g += ["// lowerFull: lowercase mappings to several code points.", "var lowerFull = map[rune]string{"]
    g += ['\t%#x: "%s",' % (c, esc(s)) for c, s in sorted(full.items())] + ["}", ""]
    hangul = range(0xAC00, 0xAC00 + 11172)
    for c in hangul:  # arithmetic in the Go code; check it here
        i = c - 0xAC00
        want = chr(0x1100 + i // 588) + chr(0x1161 + i % 588 // 28) + (chr(0x11A7 + i % 28) if i % 28 else "")
        assert dec[c] == want
    lines = [esc(chr(c) + s) + "\\n" for c, s in sorted(dec.items()) if c not in hangul]
    g += ["// decompositions: full canonical decompositions but Hangul's, a line each: the code point, then its parts.", "const decompositions = \"\" +"]
    rows = ["".join(lines[i : i + 5]) for i in range(0, len(lines), 5)]
    g += ["\t\"%s\"%s" % (r, " +" if i < len(rows) - 1 else "") for i, r in enumerate(rows)]
    with open(out_go, "w") as f:
        f.write("\n".join(g) + "\n")

    # For the tests: what the reference makes of each code point, where it is not the identity.
    with open(out_dir + "/codepoints.txt", "w", newline="\n") as f:
        f.write("# hex code point, flags (d drop, s space, c cjk, m mark, w presplit, p punct, W word, S regex space), lower, nfd\n")
        letters = dict(drop="d", space="s", cjk="c", mark="m", presplit="w", punct="p", word="W", regexspace="S")
        sets = [(l, t[k]) for k, l in letters.items()]
        for c in ALL:
            fl = "".join(l for l, s in sets if c in s)
            if fl or c in low or c in dec:
                h = lambda s: "+".join("%x" % ord(x) for x in s)
                f.write("%x\t%s\t%s\t%s\n" % (c, fl, h(low.get(c, "")), h(dec.get(c, ""))))
    print({k: (len(v), len(ranges(v))) for k, v in t.items()}, "lower", len(runs), len(full), "dec", len(lines), "ccc", len(items), file=sys.stderr)


main()
