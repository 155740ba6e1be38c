#!/bin/sh
# SynMAAD: the same bytes for any number of processes, the promised layout and shares, held-out objects really held out,
# and one clear line for every bad option. Exit 77 (skipped) where the Debian packages are not installed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
synmaad=$here/../scripts/synmaad
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "FAIL: $*" >&2
    failures=$((failures + 1))
}

[ -x /usr/bin/python3 ] || { echo "skipped: no /usr/bin/python3"; exit 77; }
"$synmaad" --contact-sheet "$work/sheet.png" 2>"$work/why" || { echo "skipped: $(cat "$work/why")"; exit 77; }

generate() { # directory jobs [more options]
    out=$1 jobs=$2
    shift 2
    "$synmaad" --out "$out" --jobs "$jobs" --max-side 320 --train 100 --validation 10 --test 20 --test-unseen 100 \
        --caption 55 --caption-validation 5 "$@" 2>"$work/log" || fail "generate $out: $(tail -1 "$work/log")"
}

generate "$work/a" 1
generate "$work/b" 2
generate "$work/c" 2 --seed 2 --test-unseen 0 --caption 0
diff -r "$work/a" "$work/b" >&2 || fail "--jobs changes the bytes"
cmp -s "$work/a/train/metadata.jsonl" "$work/c/train/metadata.jsonl" && fail "--seed changes nothing"
[ -e "$work/a.partial" ] && fail "a.partial was left behind"

generate "$work/c" 1 --force --test-unseen 0 --caption 0
diff -r "$work/a/train" "$work/c/train" >&2 || fail "--force does not replace a set by another"

/usr/bin/python3 - "$work/a" "$here/../scripts" <<'PYTHON' || fail "the set does not hold what it promises"
import collections, json, os, sys
sys.dont_write_bytecode = True
root, scripts = sys.argv[1:]
sys.path.insert(0, scripts)
from PIL import Image
from synmaad_lib import adcopy, objects, plan

def rows(split):
    with open(f"{root}/{split}/metadata.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]

def check(truth, what):
    if not truth:
        sys.exit(f"not so: {what}")

shares = collections.Counter()
for label, percent, *_ in plan.RECIPES:
    shares[label] += percent
check(len(plan.LABELS) == 9 and set(shares) == set(plan.LABELS), "nine labels")
formats = set()
for split, count in (("train", 100), ("validation", 10), ("test", 20), ("test_unseen", 100)):
    table = rows(split)
    check(len(table) == count, f"{split} has {count} rows")
    for row in table:
        check({"file_name", "text", "label", "objects", "decided_by", "caption"} <= set(row), f"keys of {row}")
        check(row["label"] in plan.LABELS and row["decided_by"] in ("image", "text", "both"), f"values of {row}")
        check(set(row["objects"]) <= set(objects.BY_KEY), f"objects of {row}")
        check(len(row.get("assist", "x")) in range(1, 25) and 8 <= len(row["text"]) <= 60, f"lengths of {row}")
        image = Image.open(f"{root}/{split}/{row['file_name']}")
        image.load()
        check(max(image.size) <= 320 and min(image.size) >= 160, f"size of {row['file_name']}")
        formats.add(image.format)
    if count % plan.BLOCK == 0:
        found = collections.Counter(row["label"] for row in table)
        check(found == {k: v * count // plan.BLOCK for k, v in shares.items()}, f"label shares of {split}: {found}")
    listed = sorted(r["file_name"] for r in table)
    stored = sorted(os.path.relpath(os.path.join(d, f), f"{root}/{split}")
                    for d, _, files in os.walk(f"{root}/{split}") for f in files if f != "metadata.jsonl")
    check(listed == stored, f"{split}: files and metadata agree")
check(formats == {"JPEG", "PNG"}, f"both formats, found {formats}")

for row in rows("caption"):
    check(row["text"] == "" and row["caption"], f"caption row {row}")
    names = row["caption"].split("、")
    order = [c.name for c in objects.CATEGORIES]
    check(names == ["模糊"] or names == sorted(names, key=order.index), f"canonical caption {row}")

seen, unseen = set(), set()
texts = {"train": set(), "test_unseen": set()}
for i in range(3000):
    for split, pool in (("train", seen), ("test_unseen", unseen)):
        ad = plan.plan_ad(1, split, i)[0]
        pool.update(ad.specs)
        texts[split].add(ad.text)
    seen.update(plan.plan_caption(1, "caption", i)[0].specs)
check(not seen & unseen, f"held-out objects: {sorted(seen & unseen)}")
check(not texts["train"] & texts["test_unseen"], "held-out copy")
check({c.key for c in objects.CATEGORIES if set(c.objects) & unseen} == set(objects.BY_KEY), "every category held out some")
for key, (patterns, held) in adcopy.PATTERNS.items():
    check(not set(patterns) & set(held), f"templates of {key}")

for i in range(2000):                         # the rules themselves
    ad = plan.plan_ad(1, "train", i)[0]
    licensed = any(n in ad.assist for names in adcopy.LICENCES.values() for n in names.split())
    if ad.keys[0] in objects.WEAPONS and not ad.blurred:
        check(ad.label == "weapons", "weapons are always weapons")
    if ad.keys[0] in objects.DRINK_AND_SMOKE and not ad.blurred:
        check(ad.label == ("compliant" if licensed else "alcohol_tobacco"), "a licence decides")
    if ad.blurred:
        check(ad.label == "unreadable" and ad.caption == "模糊", "blurred is unreadable")
PYTHON

"$synmaad" --ceilings >"$work/ceilings" || fail "--ceilings"
for view in "copy and assist text" "picture and assist text"; do
    awk -v view="$view" 'index($0, view) { found = 1; exit !($(NF - 1) < 75) } END { if (!found) exit 1 }' "$work/ceilings" ||
        fail "ceiling of '$view' is not below 75 %"
done
[ "$("$synmaad" --list-labels | wc -l)" -eq 9 ] || fail "--list-labels does not list nine"
"$synmaad" --help | grep -q examples || fail "--help has no examples"

refuse() { # words expected, options...
    want=$1
    shift
    "$synmaad" "$@" >"$work/stdout" 2>"$work/stderr"
    code=$?
    [ $code -eq 2 ] || fail "$*: exit $code, expected 2"
    [ -s "$work/stdout" ] && fail "$*: wrote to stdout"
    [ "$(wc -l <"$work/stderr")" -eq 1 ] || fail "$*: expected one line, found: $(cat "$work/stderr")"
    grep -q -- "$want" "$work/stderr" || fail "$*: '$want' is not in: $(cat "$work/stderr")"
}

mkdir "$work/other"
refuse "--out is missing"
refuse "exists already" --out "$work/a"
refuse "not a SynMAAD set" --out "$work/other" --force
refuse "does not exist" --out "$work/no/such"
refuse "from 0 to .* found '-1'" --out "$work/x" --train=-1
refuse "whole number" --out "$work/x" --seed one
refuse "from 1 to 256, found '0'" --out "$work/x" --jobs 0
refuse "from 160 to 1280, found '2000'" --out "$work/x" --max-side 2000
refuse "unrecognized arguments: --sed" --out "$work/x" --sed 1
refuse "expected one argument" --out
refuse ".jpg or .png" --contact-sheet "$work/sheet.gif"
refuse "nothing to draw" --out "$work/x" --train 0 --validation 0 --test 0 --test-unseen 0 --caption 0 --caption-validation 0
[ -e "$work/x" ] && fail "a refused command created its output"

[ $failures -eq 0 ] && echo "synmaad: all checks passed"
exit $((failures > 0))
