#!/usr/bin/env python3
"""Writes the golden files of tests/tokenizer with the real `tokenizers` library.

Needs python3-tokenizers (Debian sid: 0.23.1, linked with Oniguruma 6.9.10, i.e. Unicode 16). Run from this directory:

    python3 make_goldens.py

Every text is made here from a seed; nothing is copied. Files:
  lines.txt, added_lines.txt, ties.txt   one text per line (only "\\n" ends a line)
  ties.json                              trained on ties.txt, as Tokenizer.save() writes it (pretty)
  mixed.json                             trained on lines.txt; like the following, compact (no white space)
  opt.json, added.json, whole.json, unk.json, fuse.json, drop.json   variants of the format
  NAME.ids                               of the first lines of the text file, unsigned LEB128: for each line the number of ids, then the ids
  decode.bin                             LEB128: number of ids, ids, length of the text, then its UTF-8, repeated
  classes.txt                            hex first code point, class (L, N, S, O), w or -: runs over all code points
"""
import json
import random

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
HAN = ("新品上市全场限时特价买一送二包邮正宗手工牛肉干儿童积木水果茶运动鞋棋牌家庭娱乐酒类许可证编号药店有售不治百病"
       "天然有机蜂蜜品牌直供清仓大甩卖点击领取红包优惠券明星同款护肤面膜保湿补水防晒霜智能手表电动牙刷空气净化器")
EN = ("offer only today buy two get one free shipping new season fresh fruit tea running shoes board game family wine "
      "licence number certified organic honey brand outlet click coupon smart watch toothbrush can't won't it's they're "
      "we've I'm you'll he'd DON'T O'Neil rock'n'roll Sale SALE price photo camera lens battery charger").split()
EMOJI = ["\U0001f600", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
         "\U0001f1e8\U0001f1f3", "\U0001f1fa\U0001f1f8", "\u2764\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e0065"
         "\U000e006e\U000e0067\U000e007f", "1\ufe0f\u20e3", "\U0001f9d1\U0001f3ff\u200d\U0001f680", "\u2705", "\U0001fae8"]
SPACES = [" ", "  ", "   ", "\t", "\t\t ", "\u00a0", "\u00a0 ", "\u3000", "\u3000\u3000", " \u2003", "\u2028", "\u0085",
          "\u200b", "\u205f", "\x0b", "\x0c", " \u3000 ", "\u1680", "\x1c", "\ufeff"]
SCRIPTS = [(0x905, 0x939), (0x93e, 0x94d), (0xe01, 0xe3a), (0x621, 0x652), (0x1200, 0x1248), (0x20000, 0x20100),
           (0x1d400, 0x1d454), (0x3041, 0x3096), (0x30a1, 0x30fa), (0xac00, 0xac80), (0x410, 0x44f), (0x391, 0x3c9),
           (0x5d0, 0x5ea), (0x2160, 0x2188), (0x2460, 0x249b), (0x660, 0x669), (0xff10, 0xff5a), (0xb2, 0xbe),
           (0x31350, 0x31380), (0x2ebf0, 0x2ec20), (0x10400, 0x1044f), (0x1100, 0x1112), (0x300, 0x36f)]
PUNCT = list("，。！？、：；（）《》【】“”…—·￥%$#@&*()[]{}<>/\\|~^_-+=.,!?:;\"'`") + ["'s", "'S", "''", "'re", "'l", "!!!", "..."]


def word(r):
    k = r.random()
    if k < .36:
        i = r.randrange(len(HAN) - 6)
        return HAN[i:i + r.randint(1, 6)] if r.random() < .7 else "".join(r.choice(HAN) for _ in range(r.randint(1, 9)))
    if k < .62:
        w = r.choice(EN)
        return w if r.random() < .8 else w.capitalize() + r.choice(["", "-", "_", "2", "’s"])
    if k < .70:
        return r.choice(EMOJI) * r.choice([1, 1, 1, 2])
    if k < .78:
        return r.choice(["%d" % r.randrange(10 ** r.randint(1, 12)), "%.2f" % (r.random() * 1000), "1,000,000", "2024-11-11",
                         "50%", "3折", "A4", "x2", "１２３", "Ⅳ", "①②", "½"])
    if k < .88:
        lo, hi = r.choice(SCRIPTS)
        return "".join(chr(r.randint(lo, hi)) for _ in range(r.randint(1, 8)))
    if k < .93:
        return "".join(r.choice("aeinorst") + r.choice(["", "\u0301", "\u0308", "\u0323\u0307"]) for _ in range(r.randint(1, 5)))
    return "".join(r.choice(PUNCT) for _ in range(r.randint(1, 4)))


def line(r, extra=()):
    out = []
    for _ in range(r.randint(1, 11)):
        if extra and r.random() < .45:
            out.append(r.choice(extra))
        out.append(word(r))
        k = r.random()
        out.append(" " if k < .45 else r.choice(SPACES) if k < .62 else r.choice(PUNCT) if k < .72 else "")
    s = "".join(out)
    if r.random() < .12:
        s += r.choice(SPACES)
    if r.random() < .12:
        s = r.choice(SPACES) + s
    return s.replace("\n", " ").replace("\r", " ")


def any_char(r):
    while True:
        c = r.choice([r.randrange(0x80), r.randrange(0x3000), r.randrange(0x10000), r.randrange(0x110000)])
        if c not in (0, 10, 13) and not 0xd800 <= c < 0xe000:
            return chr(c)


def make_lines():
    r = random.Random(20241122)
    lines = [line(r, SPECIALS if r.random() < .08 else ()) for _ in range(2000)]
    lines += ["".join(any_char(r) for _ in range(r.randint(1, 24))) for _ in range(160)]
    lines += ["", " ", "  ", "\t", "\u3000", "'", "'s", " 's", "a's", "'s's", "a 's", "a  b", "a   ", "   a", " \u00a0a", "\u00a0 a",
              "</s>", " </s> ", "<s></s>", "</s", "x</s>y", "a\u0301", "\u0301", "1a", "a1", "½a", "'ll'd'm't've're"]
    return lines


def leb(out, n):
    while n >= 0x80:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    out.append(n)


def write_lines(name, lines):
    assert not any("\n" in s or "\0" in s for s in lines)
    with open(name, "w", encoding="utf-8", newline="\n") as f:
        f.writelines(s + "\n" for s in lines)


def write_ids(name, tokenizer, lines, special):
    out = bytearray()
    for s in lines:
        ids = tokenizer.encode(s, add_special_tokens=special).ids
        leb(out, len(ids))
        for i in ids:
            leb(out, i)
    with open(name, "wb") as f:
        f.write(out)


def train(lines, vocab_size, min_frequency, specials, alphabet=True):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=specials, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else []))
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


def opt_template(bos, bos_id):
    return processors.TemplateProcessing(single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 $B:1", special_tokens=[(bos, bos_id)])


def save_compact(name, t, edit):
    d = json.loads(t.to_str())
    edit(d)
    text = json.dumps(d, ensure_ascii=False, separators=(",", ":"))
    with open(name, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)
    return Tokenizer.from_file(name)


def old_merges(d):
    """The form before 0.20, with the header line that some converted files carry."""
    d["model"]["merges"] = ["#version: 0.2"] + [" ".join(m) for m in d["model"]["merges"]]


ADDED = [("<mask>", dict(lstrip=True, special=True)), ("[SEP]", dict(rstrip=True, special=True)),
         ("<|img|>", dict(lstrip=True, rstrip=True, normalized=True)), ("红包", dict(normalized=True)),
         ("word", dict(single_word=True, normalized=True)), ("牛肉", dict(single_word=True)), ("<|img|>x", dict()),
         ("\U0001f600", dict(normalized=True)), ("  ", dict(normalized=True)), ("éa", dict()), ("<m", dict(normalized=True)),
         ("SALE", dict(normalized=True, single_word=True, lstrip=True, rstrip=True)), ("\u0301", dict()), ("\u3000", dict(lstrip=True))]


WHOLE = ["offer", "word ", "新", " SALE ", " "]  # make_whole knows these as single tokens


def encodes(t, s):
    """The library panics where an lstrip token lies inside the white space that an rstrip token took."""
    try:
        t.encode(s)
        return True
    except BaseException as e:
        if type(e).__name__ != "PanicException":
            raise
        return False


def make_added(lines):
    def edit(d):
        n = len(d["model"]["vocab"])
        for i, (content, flags) in enumerate(ADDED):
            entry = dict(id=n + i, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
            d["added_tokens"].append(dict(entry, **flags))
        d["pre_tokenizer"]["add_prefix_space"] = True
        d["post_processor"] = dict(type="RobertaProcessing", sep=["</s>", 2], cls=["<s>", 0], trim_offsets=True,
                                   add_prefix_space=True)
    r = random.Random(7)
    extra = SPECIALS + [c for c, _ in ADDED] * 3 + ["words", "_word", "word\u0301", "word ", " word\u3000", "Ⅳword", "②word",
                                                    "\u24b6word", "<mask", "<|img|", "   SALE   ", "\t<mask>\u00a0"]
    added_lines = WHOLE + [line(r, extra) for _ in range(500)] + ["", " ", "word", " word", "<mask>", "  <mask>  ", "[SEP]   [SEP]", "[SEP]    ",
                                                                          "[SEP]\u3000x", "[SEP] \u3000x", "<|img|>    x"]
    t = save_compact("added.json", train(lines, 420, 2, SPECIALS), edit)
    added_lines = [s for s in added_lines if encodes(t, s)]
    write_lines("added_lines.txt", added_lines)
    write_ids("added.ids", t, added_lines, True)
    return added_lines, t


def make_whole(lines, added_lines):
    """No regex, ignore_merges with a word that no merge makes, a Sequence of processors."""
    def edit(d):
        v = d["model"]["vocab"]
        for w in ("offer", "Ġ", "wordĠ", "æĸ°", "ĠSALEĠ"):
            v.setdefault(w, len(v))
        d["model"]["ignore_merges"] = True
        d["pre_tokenizer"]["use_regex"] = False
        d["post_processor"] = dict(type="Sequence", processors=[
            dict(type="ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True),
            dict(type="BertProcessing", sep=["</s>", 2], cls=["<unk>", 3]),
            json.loads(opt_template("<pad>", 1).__getstate__())])
    t = save_compact("whole.json", train(lines[:400], 400, 2, SPECIALS), edit)
    write_ids("whole.ids", t, added_lines[:300], True)


def make_missing_bytes(added_lines):
    """Vocabularies without all bytes: unk for each, unk for a run, or nothing."""
    t = train([s for s in added_lines if s.isascii()][:40] + ["新品 café"], 180, 2, SPECIALS, alphabet=False)
    for name, unk, fuse in (("unk", "<unk>", False), ("fuse", "<unk>", True), ("drop", None, True)):
        def edit(d):
            d["model"]["unk_token"] = unk
            d["model"]["fuse_unk"] = fuse
        write_ids(name + ".ids", save_compact(name + ".json", t, edit), added_lines[:150], False)


def make_decode(t):
    r = random.Random(3)
    out = bytearray()
    top = t.get_vocab_size()
    for _ in range(400):
        ids = [r.randrange(top + 20) if r.random() < .7 else r.randrange(4, 260) for _ in range(r.randint(0, 12))]
        text = t.decode(ids, skip_special_tokens=False).encode()
        leb(out, len(ids))
        for i in ids:
            leb(out, i)
        leb(out, len(text))
        out += text
    with open("decode.bin", "wb") as f:
        f.write(out)


def make_classes():
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    t = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    t.add_tokens([AddedToken("<w>", single_word=True)])
    runs = []
    for c in range(0x110000):
        if 0xd800 <= c < 0xe000:
            continue
        s = chr(c)
        kind = "L" if len(split("a" + s)) == 1 else "N" if len(split("1" + s)) == 1 else "O" if len(split("!" + s)) == 1 else "S"
        kind += "-" if 1 in t.encode("<w>" + s).ids else "w"
        if not runs or runs[-1][1] != kind:
            runs.append((c, kind))
    write_lines("classes.txt", ["%x %s" % run for run in runs])


def main():
    lines = make_lines()
    write_lines("lines.txt", lines)

    mixed = train(lines, 2000, 2, SPECIALS)
    mixed = save_compact("mixed.json", mixed, lambda d: None)
    write_ids("mixed.ids", mixed, lines, False)
    for s in lines:  # what the round-trip test relies on
        assert mixed.decode(mixed.encode(s).ids, skip_special_tokens=False) == s
    make_decode(mixed)

    opt = train(lines[:1000], 1000, 3, SPECIALS)
    opt.post_processor = opt_template("</s>", opt.token_to_id("</s>"))
    opt = save_compact("opt.json", opt, old_merges)
    write_ids("opt.ids", opt, lines, True)

    r = random.Random(11)  # few letters: equal counts everywhere, and different pairs that spell the same token
    ties = ["".join(r.choice("aab ") for _ in range(r.randint(1, 60))) for _ in range(150)] + ["a" * n for n in range(1, 30)]
    write_lines("ties.txt", ties)
    t = train(ties, 520, 1, ["ab", "</s>", "aba"])
    t.post_processor = opt_template("</s>", 1)
    t.save("ties.json")

    added_lines, _ = make_added(lines)
    make_whole(lines, added_lines)
    make_missing_bytes(added_lines)
    make_classes()


if __name__ == "__main__":
    main()
