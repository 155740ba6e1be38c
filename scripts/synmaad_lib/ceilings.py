"""How far a single modality can get, by construction of the set.

A perfect reader of one modality knows everything that modality shows: for copy its kind, the product it names and
which licence the assist text holds; for pictures the category or that nothing can be made out. The best it can do is to
answer, for each thing it can tell apart, the label that is most frequent there.
"""
from collections import Counter, defaultdict

from . import adcopy
from . import plan

ADS = 20000


def copy_kind(ad):
    kind = plan.RECIPES[ad.recipe][3]
    return ("neutral", ad.product) if kind in plan.NEUTRAL else (kind, None)


def licence_kind(ad):
    return next((k for k, names in adcopy.LICENCES.items() if any(n in ad.assist for n in names.split())), None)


def pictured(ad):
    return "blurred" if ad.blurred else ad.keys[0]


VIEWS = [("always the most frequent label", lambda ad: 0),
         ("copy alone", copy_kind),
         ("copy and assist text", lambda ad: (copy_kind(ad), licence_kind(ad))),
         ("picture alone", pictured),
         ("picture and assist text", lambda ad: (pictured(ad), licence_kind(ad))),
         ("picture and copy, no assist text", lambda ad: (pictured(ad), copy_kind(ad))),
         ("everything", lambda ad: (pictured(ad), copy_kind(ad), licence_kind(ad)))]


def ceiling(ads, view):
    """Share of ads that the majority label of their group gets right."""
    groups = defaultdict(Counter)
    for ad in ads:
        groups[view(ad)][ad.label] += 1
    return sum(max(c.values()) for c in groups.values()) / len(ads)


def show(seed):
    ads = [plan.plan_ad(seed, "train", i)[0] for i in range(ADS)]
    print(f"best possible accuracy over {ADS} ads of split train, seed {seed}:")
    for name, view in VIEWS:
        print(f"  {name:34s} {100 * ceiling(ads, view):5.1f} %")
