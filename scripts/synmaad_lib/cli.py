"""Command line: options, splits, worker processes, progress, and the atomic output directory."""
import argparse
import io
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time

from . import compose
from . import objects
from . import plan

AD_SPLITS = ("train", "validation", "test", "test_unseen")
CAPTION_SPLITS = ("caption", "caption_validation")
# Captions come first: pretraining can start on them while the ads are still being drawn.
DEFAULTS = {"caption": 60000, "caption_validation": 1000, "train": 12000, "validation": 1500, "test": 1500,
            "test_unseen": 1500}
CHUNK = 50
PER_FOLDER = 1000
AD_COST = 5             # an ad takes about five times as long as a caption picture; the ETA counts with it


def cost(split):
    return 1 if split in CAPTION_SPLITS else AD_COST

HELP = """\
Draws SynMAAD, a labelled set of synthetic ads, in Hugging Face's imagefolder layout.

examples:
  synmaad --out data/synmaad                         the default set: 16,500 ads and 61,000 caption pictures
  synmaad --out /tmp/small --train 900 --caption 0   fewer ads, no caption pictures
  synmaad --out /tmp/mine --seed 7 --jobs 4          another set from another seed, four processes
  synmaad --list-labels                              the nine labels, their shares and what decides them

The picture and the row number i of a split depend only on --seed, the split and i (and on --max-side), never on --jobs.
Needs: apt install python3-pil python3-numpy openclipart-png fonts-noto-color-emoji fonts-noto-cjk fonts-wqy-microhei"""


class UsageError(Exception):
    pass


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(message)


def natural(low, high):
    def convert(text):
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, found '{text}'")
        return int(text)
    return convert


def parser():
    p = Parser(prog="synmaad", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("--out", metavar="DIR", help="directory to create; must not exist")
    p.add_argument("--seed", type=natural(0, 2 ** 63 - 1), default=1, metavar="N", help="default 1")
    p.add_argument("--jobs", type=natural(1, 256), default=os.cpu_count() or 1, metavar="N", help="processes; default: all cores")
    for split, count in DEFAULTS.items():
        p.add_argument("--" + split.replace("_", "-"), type=natural(0, 10 ** 7), default=count, metavar="N",
                       help=f"samples in split {split}; default {count}")
    p.add_argument("--max-side", type=natural(160, 1280), default=1280, metavar="PIXELS",
                   help="longest side of an ad picture, 160 to 1280; default 1280")
    p.add_argument("--force", action="store_true", help="replace DIR if it is an earlier SynMAAD set")
    p.add_argument("--list-labels", action="store_true", help="print the labels and leave")
    p.add_argument("--contact-sheet", metavar="FILE", help="draw a .jpg or .png overview of the ads of split test, and leave")
    p.add_argument("--ceilings", action="store_true", help="print what a single modality can reach at best, and leave")
    return p


def ad_row(ad, name):
    row = {"file_name": name, "text": ad.text, "label": ad.label}
    if ad.assist:
        row["assist"] = ad.assist
    row.update(objects=ad.keys, decided_by=ad.decided_by, caption=ad.caption, recipe=ad.recipe)
    return row


def draw_sample(seed, split, i, max_side):
    """(row, encoded picture) of sample i."""
    if split in CAPTION_SPLITS:
        ad, rng = plan.plan_caption(seed, split, i)
        image, ext, options = compose.draw_caption(rng, ad)
    else:
        ad, rng = plan.plan_ad(seed, split, i)
        image, ext, options = compose.draw_ad(rng, ad, max_side)
    name = f"{i // PER_FOLDER:03d}/{i:06d}.{ext}"
    data = io.BytesIO()
    image.save(data, "JPEG" if ext == "jpg" else "PNG", **options)
    row = {"file_name": name, "text": "", "caption": ad.caption} if split in CAPTION_SPLITS else ad_row(ad, name)
    return row, data.getvalue()


def draw_chunk(task):
    """Runs in a worker: draws and stores samples start..stop, returns their metadata lines."""
    folder, seed, split, start, stop, max_side = task
    lines = []
    for i in range(start, stop):
        row, data = draw_sample(seed, split, i, max_side)
        path = os.path.join(folder, row["file_name"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        lines.append(json.dumps(row, ensure_ascii=False))
    return lines


class Progress:
    """One line per split on a log, a moving line on a terminal."""

    def __init__(self, counts):
        self.total, self.done = sum(counts.values()), 0
        self.work, self.worked = sum(n * cost(s) for s, n in counts.items()), 0
        self.began = time.monotonic()
        self.shown = self.began      # the first line waits until there is a rate worth telling
        self.terminal = sys.stderr.isatty()

    def step(self, split, n):
        self.done += n
        self.worked += n * cost(split)
        now = time.monotonic()
        if now - self.shown < (0.3 if self.terminal else 15) and self.done < self.total:
            return
        self.shown = now
        spent = now - self.began
        left = spent * (self.work - self.worked) / self.worked
        line = f"{split:18s} {self.done}/{self.total}  {self.done / max(spent, 1e-9):.0f}/s  {spent:.0f} s, {left:.0f} s left"
        print(("\r" + line + "   ") if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True)

    def end(self):
        if self.terminal:
            print(file=sys.stderr)


def write_split(pool, folder, split, args, progress):
    count = getattr(args, split)
    os.makedirs(folder)
    tasks = [(folder, args.seed, split, a, min(a + CHUNK, count), args.max_side) for a in range(0, count, CHUNK)]
    with open(os.path.join(folder, "metadata.jsonl"), "w", encoding="utf-8") as f:
        for lines in (pool.imap(draw_chunk, tasks) if pool else map(draw_chunk, tasks)):
            f.write("\n".join(lines) + "\n")
            progress.step(split, len(lines))


def check_packages():
    for path, _, package in compose.FONTS:
        objects.need(path, package)
    objects.need(objects.EMOJI_FONT, "fonts-noto-color-emoji")
    objects.need(objects.CLIP_ROOT, "openclipart-png")


def check_out(args):
    if not args.out:
        raise UsageError("--out is missing: name the directory to create")
    args.out = args.out.rstrip("/") or "/"
    if not any(getattr(args, s) for s in DEFAULTS):
        raise UsageError("every split is set to 0 samples: nothing to draw")
    if os.path.lexists(args.out):
        if not args.force:
            raise UsageError(f"--out {args.out} exists already; remove it or add --force")
        if not os.path.isfile(os.path.join(args.out, "synmaad.json")):
            raise UsageError(f"--out {args.out} exists and is not a SynMAAD set (no synmaad.json); not replaced")
    parent = os.path.dirname(os.path.abspath(args.out))
    if not os.path.isdir(parent):
        raise UsageError(f"--out {args.out}: the directory {parent} does not exist")


def describe(args):
    """synmaad.json: enough to make the set again."""
    import numpy
    import PIL
    return {"generator": "synmaad", "version": 1, "seed": args.seed, "max_side": args.max_side,
            "counts": {s: getattr(args, s) for s in DEFAULTS}, "labels": plan.LABELS,
            "pillow": PIL.__version__, "numpy": numpy.__version__}


def ignore_interrupt():
    """Ctrl-C reaches the whole process group; only the parent answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def generate(args):
    partial = args.out + ".partial"
    if os.path.lexists(partial):
        shutil.rmtree(partial)
    os.makedirs(partial)
    counts = {s: getattr(args, s) for s in DEFAULTS if getattr(args, s)}
    progress = Progress(counts)
    if progress.total > 2000:
        objects.preload()
    pool = multiprocessing.get_context("fork").Pool(args.jobs, ignore_interrupt) if args.jobs > 1 else None
    try:
        for split in counts:
            write_split(pool, os.path.join(partial, split), split, args, progress)
    finally:
        if pool:
            pool.terminate()
    progress.end()
    with open(os.path.join(partial, "synmaad.json"), "w", encoding="utf-8") as f:
        json.dump(describe(args), f, ensure_ascii=False, indent=1)
        f.write("\n")
    if os.path.lexists(args.out):
        shutil.rmtree(args.out)
    os.rename(partial, args.out)
    print(f"synmaad: wrote {progress.total} samples to {args.out} in {time.monotonic() - progress.began:.0f} s", file=sys.stderr)


def list_labels():
    for label, name in plan.LABELS.items():
        recipes = [r for r in plan.RECIPES if r[0] == label]
        ways = "; ".join(f"{r[1]}% picture:{r[2]} copy:{r[3]} assist:{r[4]}" for r in recipes)
        print(f"{label:16s} {name}  {sum(r[1] for r in recipes)}%  {ways}")


def main(argv):
    try:
        args = parser().parse_args(argv)
        if args.list_labels:
            list_labels()
            return 0
        if args.ceilings:
            from . import ceilings
            ceilings.show(args.seed)
            return 0
        if not args.contact_sheet:
            check_out(args)
        elif not args.contact_sheet.lower().endswith((".jpg", ".png")):
            raise UsageError(f"--contact-sheet {args.contact_sheet}: expected a name that ends in .jpg or .png")
        check_packages()
    except UsageError as e:
        print(f"synmaad: {e}", file=sys.stderr)
        return 2
    except objects.MissingPackage as e:
        print(f"synmaad: {e}", file=sys.stderr)
        return 1
    try:
        if args.contact_sheet:
            from . import contact
            contact.draw(args.contact_sheet, args.seed)
        else:
            generate(args)
    except (OSError, objects.MissingPackage) as e:
        print(f"synmaad: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"synmaad: interrupted; {args.out}.partial is incomplete and may be deleted", file=sys.stderr)
        return 1
    return 0
