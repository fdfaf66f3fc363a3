"""Texts for the tokenizer's reference data: self-written pieces, put together by seeded code."""

import random

PLAIN = """The harbour was quiet before sunrise | a kettle whistles in the next room | Could you send me the figures for March?
My neighbour's cat refuses to come down from the roof | she bought 12 apples, 3 pears and a melon | it rained for 40 days
Photosynthesis turns light into sugar | the committee postponed its decision again | don't forget the milk!
We'll meet at half past seven | I can't believe it's not raining | they've sold 1,234.56 units at $9.99 each
An unbelievably long explanation of electroencephalography | tokenization of antidisestablishmentarianism
E-mail: someone@example.org | see https://example.org/a/b?c=d&e=f#g | call +49 (0)30 123-456 | version 2.15.0-rc1+cu132
The quick test -- with dashes — and “curly quotes” … and ellipsis | 50% off; 3/4 full; 5 × 6 = 30 | A.B.C. U.S.A. e.g. i.e.""".replace("\n", " | ").split(" | ")

WORLD = """Überraschung im Größenvergleich: naïve façade, coöperate, Ångström | El niño comió piñas ayer por la mañana
L'été, où êtes-vous ? Ça va très bien, Noël ! | Zażółć gęślą jaźń, proszę | Příliš žluťoučký kůň
İstanbul'da ılık bir gün, ığdır | Ο καιρός είναι καλός σήμερα, ΣΊΣΥΦΟΣ | Погода сегодня хорошая, ёлка и йод
今天天气很好,我们去公园吧。 | 東京は今日も雨です。カタカナとひらがな | 한국어 문장을 하나 적어 봅니다 | 漢字かな交じり文𠀋𪚥
שלום עולם, מה שלומך היום? | مرحبا بالعالم، كيف حالك اليوم؟ | السَّلَامُ عَلَيْكُمْ | سلام دنیا ۱۲۳
สวัสดีครับ วันนี้อากาศดี | नमस्ते दुनिया, आज मौसम अच्छा है | বাংলা লেখা পরীক্ষা | தமிழ் எழுத்து | မြန်မာစာ | ქართული ენა | Հայերեն տեքստ
Tiếng Việt có nhiều dấu: ửng, ợ, ễ, ặ | ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ | 𐐀𐐁𐐂 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚 | ﬁne ﬂow ½ ² ℃ № ㎏ Ⅷ ①""".replace("\n", " | ").split(" | ")

MARKS = ["e\u0301a\u0308", "a\u0315\u0300\u0316b", "\u0344\u0316x", "q\u0323\u0307q\u0307\u0323", "\u0301start", "Z\u0351\u036b\u0343\u036aa\u0302\u0364lgo",
         "\u1100\u1161\u11a8\uac00\u11a8", "\u212b\u2126\u1e9b\u0323", "o\u0302\u0323 \u1ed9", "\u0f71\u0f72\u0f74\u0f81", "\u302a\u302e\u3099か\u3099", "I\u0307\u0130i\u0307"]

EMOJI = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇯🇵", "😀😃", "❤️", "🥰🫠🪿", "1️⃣", "👨🏿‍🚀", "☺︎☺️", "🧑‍💻 typing", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]

ODD = ["[MASK]", "[CLS] in the text [SEP]", "a[MASK]b", "[mask] [Mask]", "[ MASK ]", "[[MASK]]", "[UNK][PAD]", "[PAD] [PAD]", "[MASK][MASK]", "[unused1]", "##ing", "##", "# # #",
       "tab\there", "line\nbreak\r\nand\vmore\f", "nul\x00byte", "bell\x07\x1b[0m", "zero\u200bwidth\u200djoin\u200c\ufeffbom", "soft\u00adhyphen", "nbsp\u00a0thin\u2009ideographic\u3000space",
       "line\u2028sep\u2029para\u0085nel", "\ufffd replacement \ufffe \uffff", "private \ue000 \U000f0000", "rtl \u202eoverride\u202c end", "  two  spaces  ", "\t\t", "x" * 99, "x" * 100, "x" * 101, "ab" * 300,
       "é" * 100, "é" * 101, "..." * 40, "?!?!", "don't", "rock 'n' roll", "I 'm they 're we 've do not n't", "𝕏" * 20, "\U0010ffff end"]

CODE = ["func main() { fmt.Println(\"hi\", 0x7F, a[i] << 2) }", "for (int i = 0; i < n; ++i) sum += x[i]*x[i]; // O(n)", "SELECT * FROM t WHERE a >= 10 AND b LIKE '%x%';",
        "def f(x: int = 3) -> list[str]:\n    return [str(x)] * x\n", "<div class=\"a b\">&amp; &lt;</div>", "{\"key\": [1, 2.5e-3, null, true]}", "git commit -am 'fix #123' && make -j8", "\\frac{a}{b} = \\sum_{i=0}^{n} x_i^2", "CamelCaseName snake_case_name kebab-case SCREAMING"]

ALL = PLAIN + WORLD + MARKS + EMOJI + ODD + CODE
SPACES = [" ", " ", " ", " ", "  ", "\n", "\t", "", ", ", ". ", "\u00a0", " - "]


def sentences(n=1000, seed=20261123):
    r = random.Random(seed)
    out = ["", " ", "   \t\n ", "\u200b", "\x00", "\u0301", "a", "[CLS]", "[SEP]", ".", "中"] + ALL
    for length in (120, 300, 560, 600, 640, 900):  # about so many words or more
        for pool in (PLAIN, ALL):
            parts = []
            while sum(len(p.split()) + 1 for p in parts) < length:
                parts.append(r.choice(pool))
            out.append(" ".join(parts))
    while len(out) < n:
        k = r.choice([1, 1, 2, 2, 3, 3, 4, 5, 8, 13])
        pool = r.choice([PLAIN, PLAIN, PLAIN, ALL, ALL, WORLD])
        s = ""
        for _ in range(k):
            piece = r.choice(pool)
            if r.random() < 0.4:
                w = piece.split(" ")
                i = r.randrange(len(w))
                piece = " ".join(w[i : i + r.randint(1, 6)])
            if r.random() < 0.1:
                piece = piece.upper() if r.random() < 0.5 else piece.title()
            s += piece + r.choice(SPACES)
        out.append(s if r.random() < 0.3 else s.strip(" "))
    assert len(out) == n
    return out


# Blocks that matter to the pipeline, and their share of the random strings.
BLOCKS = [((0x20, 0x7E), 30), ((0x00, 0x1F), 2), ((0x7F, 0xFF), 6), ((0x100, 0x24F), 6), ((0x300, 0x36F), 12), ((0x370, 0x52F), 5), ((0x590, 0x6FF), 6), ((0x900, 0xE7F), 5),
          ((0xF00, 0x10FF), 3), ((0x1100, 0x11FF), 2), ((0x13A0, 0x13FF), 1), ((0x1AB0, 0x1AFF), 2), ((0x1DC0, 0x1FFF), 5), ((0x2000, 0x206F), 4), ((0x20D0, 0x2BFF), 4), ((0x3000, 0x30FF), 3),
          ((0x3400, 0x9FFF), 4), ((0xA000, 0xABFF), 3), ((0xAC00, 0xD7A3), 3), ((0xE000, 0xF8FF), 1), ((0xF900, 0xFFFF), 4), ((0x10000, 0x1FFFF), 5), ((0x20000, 0x3FFFF), 2), ((0xE0000, 0x10FFFF), 1)]


def random_strings(n, seed):
    r = random.Random(seed)
    blocks, weights = zip(*BLOCKS)
    out = []
    for _ in range(n):
        s, want = [], r.choice([1, 3, 8, 20, 40])
        while len(s) < want:
            lo, hi = r.choices(blocks, weights)[0]
            for _ in range(r.choice([1, 1, 2, 4])):
                c = r.randint(lo, hi)
                if not 0xD800 <= c <= 0xDFFF:
                    s.append(chr(c))
            if r.random() < 0.08:
                s.append(r.choice([" ", "[MASK]", "the", "\u0301", "ing"]))
        out.append("".join(s))
    return out
