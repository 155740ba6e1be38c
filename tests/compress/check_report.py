#!/usr/bin/env python3
"""Is a page of `winnow-prune report` what it promises? Well-formed XML, nothing executable, nothing outside; every plot drawn
with finite numbers inside its own frame, and no text of a plot over another. Needs only Python's standard library.

    check_report.py PAGE...        prints a line a page; exits 1 with the reason at the first that fails
"""
import re
import sys
import unicodedata
import xml.etree.ElementTree as ET

EM = 0.5  # of the font size: a mean letter; wide characters are twice that
NUMBER = re.compile(r"-?(?:nan|inf|[0-9.]+(?:e[-+]?[0-9]+)?)", re.I)


def fail(page, what):
    sys.exit(f"{page}: {what}")


def numbers(text):
    return [float(n) for n in NUMBER.findall(text)]


def columns(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def path_points(d):
    """Absolute end points of a path of M, L, H, V, h, v."""
    x = y = 0.0
    for command, rest in re.findall(r"([MLHVhv])([^MLHVhv]*)", d):
        values = numbers(rest)
        if command in "ML":
            x, y = values
        elif command == "H":
            (x,) = values
        elif command == "V":
            (y,) = values
        elif command == "h":
            x += values[0]
        else:
            y += values[0]
        yield x, y


def text_box(e):
    size = float(e.get("font-size", 13 if e.get("class") == "h" else 11))
    text = "".join(e.itertext())
    width, x, y = columns(text) * size * EM, float(e.get("x")), float(e.get("y"))
    x -= {"start": 0, "middle": width / 2, "end": width}[e.get("text-anchor", "start")]
    return x, y - 0.75 * size, x + width, y + 0.15 * size, text


def check_svg(page, svg):
    left, top, width, height = numbers(svg.get("viewBox"))

    def inside(x, y, slack, what):
        ok = left - slack <= x <= left + width + slack and top - slack <= y <= top + height + slack
        if not ok:  # also for nan
            fail(page, f"{what} at {x}, {y} is outside of {width} x {height} in \"{svg.get('aria-label')}\"")

    texts = []
    for e in svg.iter():
        if e.tag == "path":
            for x, y in path_points(e.get("d")):
                inside(x, y, 1, "a path")
        elif e.tag == "circle":
            inside(float(e.get("cx")), float(e.get("cy")), 1, "a dot")
        elif e.tag == "rect":
            x, y, w, h = (float(e.get(k)) for k in ("x", "y", "width", "height"))
            if not (w >= 0 and h >= 0):
                fail(page, f"a bar of {w} x {h}")
            inside(x, y, 1, "a bar")
            inside(x + w, y + h, 1, "a bar")
        elif e.tag == "text":
            box = text_box(e)
            inside(box[0], box[1], 4, f"text \"{box[4]}\"")
            inside(box[2], box[3], 4, f"text \"{box[4]}\"")
            for other in texts:
                if box[0] < other[2] and box[2] > other[0] and box[1] < other[3] and box[3] > other[1]:
                    fail(page, f"\"{box[4]}\" covers \"{other[4]}\" in \"{svg.get('aria-label')}\"")
            texts.append(box)
        elif e.tag not in ("svg", "title"):
            fail(page, f"unexpected element {e.tag} in a plot")


def check(page):
    try:
        root = ET.parse(page).getroot()
    except ET.ParseError as e:
        fail(page, f"not well formed: {e}")
    for e in root.iter():
        if e.tag in ("script", "img", "link", "iframe", "object", "embed", "base", "form", "foreignObject", "use", "image"):
            fail(page, f"contains <{e.tag}>")
        for k in e.keys():
            if k in ("src", "href", "style", "action") or k.startswith("on") or "href" in k:
                fail(page, f"<{e.tag}> has {k}")
        if e.tag == "style" and re.search(r"url\(|@import|expression", e.text):
            fail(page, "the style refers to something outside")
    svgs = list(root.iter("svg"))
    for svg in svgs:
        check_svg(page, svg)
    print(f"{page}: {len(svgs)} plots, {sum(1 for _ in root.iter('table'))} tables")


for name in sys.argv[1:]:
    check(name)
