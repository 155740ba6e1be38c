"""The contact sheet of the documentation: a row of ads per label, each shrunk to the 112 pixels a model sees."""
from PIL import Image, ImageDraw

from . import compose
from . import plan

CELL = 112
GAP = 4
COLUMNS = 11
HEAD = 132


def first_ads(seed, split, label, n):
    found, i = [], 0
    while len(found) < n:
        ad, rng = plan.plan_ad(seed, split, i)
        if ad.label == label:
            found.append(compose.draw_ad(rng, ad, 480)[0])
        i += 1
    return found


def draw(path, seed, split="test"):
    step = CELL + GAP
    sheet = Image.new("RGB", (HEAD + COLUMNS * step, len(plan.LABELS) * step), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for row, (label, name) in enumerate(plan.LABELS.items()):
        pen.text((6, row * step + 34), name, font=compose.font(0, 20), fill=(20, 20, 24))
        pen.text((6, row * step + 62), label, font=compose.font(1, 13), fill=(90, 90, 96))
        for column, image in enumerate(first_ads(seed, split, label, COLUMNS)):
            small = image.convert("RGB").resize((CELL, CELL), Image.Resampling.BICUBIC)
            sheet.paste(small, (HEAD + column * step, row * step))
    sheet.save(path, quality=82)
