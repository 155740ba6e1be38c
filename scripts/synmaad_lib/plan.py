"""What an ad is before it is drawn: its label, what is pictured, what it says.

RECIPES lists every way to reach a label, in percent; all rules of the data set are readable there. A split is dealt
out in blocks of 100 ads, each block a shuffle of the whole table, so that every label has its exact share.
"""
import random

from . import adcopy
from . import objects

LABELS = {"compliant": "合规", "weapons": "违禁品", "alcohol_tobacco": "烟酒违规", "gambling": "赌博",
          "medical_claim": "医疗违规", "false_claim": "虚假宣传", "mismatch": "图文不符", "clickbait": "诱导点击",
          "unreadable": "画质低劣"}

# (label, percent, pictured, copy, assist, decided by). Pictured "any" is an ordinary product.
# Copy: "neutral" is product copy that may name the pictured product or none; "stray" may also name another product
# (only where a stronger rule decides anyway); "other" names a product that is not pictured.
RECIPES = [
    ("compliant", 8, "any", "neutral", "any", "both"),
    ("compliant", 3, "any", "prize", "any", "both"),
    ("compliant", 5, "drink_smoke", "drink_smoke", "licence", "both"),
    ("compliant", 3, "gambling", "family", "any", "both"),
    ("compliant", 1, "gambling", "neutral", "any", "both"),
    ("weapons", 10, "weapons", "stray", "any", "image"),
    ("alcohol_tobacco", 8, "drink_smoke", "drink_smoke", "no_licence", "both"),
    ("alcohol_tobacco", 2, "drink_smoke", "stray", "no_licence", "both"),
    ("gambling", 8, "gambling", "prize", "any", "both"),
    ("gambling", 2, "gambling", "chips", "any", "both"),
    ("medical_claim", 10, "any", "medical", "any", "text"),
    ("false_claim", 10, "any", "false", "any", "text"),
    ("mismatch", 9, "any", "other", "any", "both"),
    ("mismatch", 1, "any", "family", "any", "both"),
    ("clickbait", 10, "any", "clickbait", "any", "text"),
    ("unreadable", 10, "blurred", "stray", "any", "image"),
]
BLOCK = 100
assert sum(r[1] for r in RECIPES) == BLOCK

NEUTRAL = ("neutral", "stray", "drink_smoke", "other")   # all are the same copy; they differ in what may be named
NAMED = 0.7                 # share of neutral copy that names a product
STRAY_LICENCE = 0.12        # share of ordinary ads with an alcohol or tobacco licence in `assist`
TWO = 0.18                  # share of pictures with two objects of the same category

# Pairs too close to call "clearly different".
CLOSE = [{"cake", "icecream"}, {"cake", "fruit"}, {"icecream", "fruit"}, {"clothes", "hat"}, {"cup", "alcohol"}, {"car", "bike"},
         {"bag", "clothes"}, {"shoes", "clothes"}, {"ball", "gambling"}, {"alcohol", "tobacco"}]


class Ad:
    """One planned ad; `keys` are the pictured categories, `specs` the objects."""

    def __init__(self, label, decided_by, keys, specs, text, assist, blurred, recipe, product=None):
        self.label, self.decided_by, self.keys, self.specs = label, decided_by, keys, specs
        self.text, self.assist, self.blurred, self.recipe = text, assist, blurred, recipe
        self.product = product      # what neutral copy names

    @property
    def caption(self):
        return BLUR_CAPTION if self.blurred else objects.caption_of(self.keys)


BLUR_CAPTION = "模糊"


def recipe_index(seed, split, i):
    """Which recipe ad i of a split follows: position i % BLOCK of the shuffled block i // BLOCK."""
    deck = [n for n, r in enumerate(RECIPES) for _ in range(r[1])]
    random.Random(f"{seed}/{split}/block/{i // BLOCK}").shuffle(deck)
    return deck[i % BLOCK]


def pick_category(rng, pictured):
    if pictured == "weapons":
        return rng.choice(objects.WEAPONS)
    if pictured == "drink_smoke":
        return rng.choice(objects.DRINK_AND_SMOKE)
    if pictured == "gambling":
        return "gambling"
    if pictured == "blurred":
        return rng.choice([c.key for c in objects.CATEGORIES])
    return rng.choice(objects.ORDINARY)


def pick_objects(rng, key, unseen):
    category = objects.BY_KEY[key]
    pool = category.unseen if unseen else category.seen
    n = 2 if rng.random() < TWO else 1
    return [rng.choice(pool) for _ in range(n)]


def other_product(rng, key):
    """A product clearly different from what is pictured; drinks, smokes and games are named now and then."""
    while True:
        other = rng.choice(objects.ORDINARY if rng.random() < 0.9 else ["alcohol", "tobacco", "gambling"])
        if other != key and {other, key} not in CLOSE:
            return other


def choose_product(rng, kind, key):
    """The product the copy shall name, or None; templates without a name may still be drawn for the latter four."""
    named = rng.random() < NAMED
    if kind == "neutral":
        return key if named and key in objects.ORDINARY else None
    if kind == "stray":
        return rng.choice(objects.ORDINARY) if named else None
    if kind == "drink_smoke":
        return key if rng.random() < 0.3 else None
    if kind == "other":
        return other_product(rng, key)
    return key if key in objects.ORDINARY and kind in ("medical", "false", "clickbait") else None


def write_copy(rng, kind, key, unseen):
    """(text, product): one line of copy, and the product that neutral copy names."""
    product = choose_product(rng, kind, key)
    if kind in NEUTRAL:
        return adcopy.neutral(rng, unseen, product), product
    return adcopy.write(rng, kind, unseen, product), None


def write_assist(rng, kind, key):
    if kind == "licence":
        return adcopy.licence(rng, key)
    if kind == "any" and rng.random() < STRAY_LICENCE:
        return adcopy.licence(rng, rng.choice(objects.DRINK_AND_SMOKE))
    return adcopy.small_print(rng)


def plan_ad(seed, split, i):
    """The plan of one ad and the generator that its drawing continues with."""
    n = recipe_index(seed, split, i)
    label, _, pictured, copy_kind, assist_kind, decided_by = RECIPES[n]
    rng = random.Random(f"{seed}/{split}/{i}")
    unseen = split == "test_unseen"
    key = pick_category(rng, pictured)
    specs = pick_objects(rng, key, unseen)
    text, product = write_copy(rng, copy_kind, key, unseen)
    assist = write_assist(rng, assist_kind, key)
    return Ad(label, decided_by, [key], specs, text, assist, pictured == "blurred", n, product), rng


def plan_caption(seed, split, i):
    """A picture for caption pretraining: one category, sometimes two, sometimes unreadable; objects of `train` only."""
    rng = random.Random(f"{seed}/{split}/{i}")
    first = objects.CATEGORIES[i % len(objects.CATEGORIES)].key
    keys, specs = [first], pick_objects(rng, first, False)
    draw = rng.random()
    if draw < 0.1:
        second = rng.choice([c.key for c in objects.CATEGORIES if c.key != first])
        keys, specs = [first, second], [specs[0], rng.choice(objects.BY_KEY[second].seen)]
    words = adcopy.neutral(rng, False, rng.choice(objects.ORDINARY))
    return Ad("", "", keys, specs, words, "", draw > 0.95, -1), rng
