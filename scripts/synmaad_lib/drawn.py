"""Objects drawn in code, for the categories that clip-art covers too thinly.

Every painter takes a random.Random that belongs to one variant and returns an RGBA picture; the variant number alone
fixes shape and colours, so "pistol 3" is always the same pistol. Painters draw at SS times the final size and the
caller shrinks, which is the cheapest good antialiasing PIL offers.
"""
import math
import random

from PIL import Image, ImageDraw

SIDE = 384
SS = 3
N = SIDE * SS


class Pen:
    """A square canvas addressed in 0..100 units, so that painters read like sketches on squared paper."""

    def __init__(self):
        self.image = Image.new("RGBA", (N, N), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.image)

    @staticmethod
    def at(points):
        return [(x * N / 100.0, y * N / 100.0) for x, y in points]

    def poly(self, points, fill, line=None, width=0.8):
        pts = self.at(points)
        self.draw.polygon(pts, fill=fill)
        if line:
            self.draw.line(pts + [pts[0], pts[1]], fill=line, width=int(width * N / 100), joint="curve")

    def box(self, x0, y0, x1, y1, fill, line=None, width=0.8, radius=0):
        (a, b), (c, d) = self.at([(x0, y0), (x1, y1)])
        self.draw.rounded_rectangle((a, b, c, d), radius * N / 100, fill=fill, outline=line,
                                    width=int(width * N / 100) if line else 0)

    def oval(self, x0, y0, x1, y1, fill=None, line=None, width=0.8):
        (a, b), (c, d) = self.at([(x0, y0), (x1, y1)])
        self.draw.ellipse((a, b, c, d), fill=fill, outline=line, width=int(width * N / 100) if line else 0)

    def disc(self, x, y, r, fill=None, line=None, width=0.8):
        self.oval(x - r, y - r, x + r, y + r, fill, line, width)

    def stroke(self, points, fill, width):
        w = max(1, int(width * N / 100))
        pts = self.at(points)
        self.draw.line(pts, fill=fill, width=w, joint="curve")
        for x, y in (pts[0], pts[-1]):
            self.draw.ellipse((x - w / 2, y - w / 2, x + w / 2, y + w / 2), fill=fill)

    def arc(self, x0, y0, x1, y1, start, end, fill, width):
        (a, b), (c, d) = self.at([(x0, y0), (x1, y1)])
        self.draw.arc((a, b, c, d), start, end, fill=fill, width=int(width * N / 100))

    def pie(self, x, y, r, start, end, fill):
        (a, b), (c, d) = self.at([(x - r, y - r), (x + r, y + r)])
        self.draw.pieslice((a, b, c, d), start, end, fill=fill)

    def done(self):
        return self.image.resize((SIDE, SIDE), Image.Resampling.BOX)


def shade(colour, factor):
    return tuple(max(0, min(255, int(c * factor))) for c in colour[:3])


METALS = [(52, 54, 60), (86, 90, 98), (30, 32, 36), (120, 124, 130), (70, 62, 52), (44, 56, 70)]
WOODS = [(122, 72, 36), (92, 52, 26), (148, 96, 50), (60, 38, 24)]
VIVID = [(214, 40, 48), (30, 96, 190), (24, 140, 84), (240, 160, 20), (120, 50, 150), (230, 90, 140), (20, 150, 170),
         (60, 60, 70), (240, 214, 60), (150, 90, 50)]
BLACK = (18, 18, 20)


# --- weapons ---------------------------------------------------------------------------------------------------------

def pistol(r):
    p, m, g = Pen(), r.choice(METALS), r.choice(WOODS + [BLACK, (40, 40, 44)])
    top, thick, lean = 30, r.uniform(12, 17), r.uniform(6, 16)
    muzzle, back = r.uniform(3, 12), r.uniform(88, 96)
    low = top + thick
    p.box(muzzle, top, back, low, m, BLACK, 0.8, 1.5)
    p.box(muzzle + 2, low - 1, 70, low + 7, shade(m, 0.8), BLACK, 0.8, 1)
    p.poly([(66, low), (92, low), (94 + lean * 0.4, low + 42), (76 + lean * 0.4, low + 44)], g, BLACK)
    p.arc(50, low, 70, low + 18, -20, 200, shade(m, 0.6), 2.2)
    p.stroke([(61, low + 5), (59, low + 13)], BLACK, 2)
    for i in range(6):
        p.stroke([(76 + i * 2.4, top + 2.5), (76 + i * 2.4, low - 3)], shade(m, 0.55), 0.7)
    for i in range(4):
        y = low + 10 + i * 7
        p.stroke([(73 + i * 0.6, y), (89 + i * 0.7, y)], shade(g, 0.7), 0.9)
    p.box(muzzle + 1, top - 3, muzzle + 5, top, m)
    p.box(back - 6, top - 3.5, back - 2, top, m)
    p.box(44, top + 3, 58, top + 7, shade(m, 0.5))
    return p.done()


def revolver(r):
    p, m, g = Pen(), r.choice(METALS + [(170, 172, 178)]), r.choice(WOODS)
    muzzle = r.uniform(4, 22)
    p.box(muzzle, 30, 56, 38, m, BLACK, 0.8, 1)
    p.box(muzzle, 38, 52, 42, shade(m, 0.7), BLACK, 0.6)
    p.poly([(50, 28), (78, 28), (86, 36), (82, 52), (54, 52), (50, 44)], m, BLACK)
    p.box(53, 30, 71, 50, shade(m, 1.25), BLACK, 0.9, 4)
    for y in (35, 40, 45):
        p.stroke([(56, y), (68, y)], shade(m, 0.5), 1.3)
    bend = r.uniform(0, 6)
    p.poly([(72, 50), (84, 46), (92 + bend, 62), (98, 82), (84, 88), (78, 66)], g, BLACK)
    p.arc(54, 46, 74, 66, 0, 180, shade(m, 0.6), 2.2)
    p.stroke([(65, 52), (63, 60)], BLACK, 2)
    p.poly([(80, 30), (90, 22), (92, 26), (84, 36)], m, BLACK, 0.6)
    p.box(muzzle + 1, 26, muzzle + 5, 30, m)
    return p.done()


def rifle(r):
    p, m = Pen(), r.choice(METALS[:3])
    g = r.choice(WOODS + [BLACK, (70, 76, 50)])
    y = 42
    p.box(2, y + 3, 40, y + 6, m)
    p.box(4, y - 2, 6, y + 3, m)
    p.poly([(30, y), (48, y), (48, y + 10), (30, y + 8)], g, BLACK, 0.6)
    p.box(46, y - 1, 72, y + 11, m, BLACK, 0.6, 1)
    p.poly([(70, y), (98, y + r.uniform(2, 6)), (98, y + 19), (88, y + 18), (71, y + 10)], g, BLACK, 0.6)
    curve = r.uniform(3, 11)
    p.poly([(50, y + 10), (59, y + 10), (57 - curve, y + 32), (47 - curve, y + 30)], shade(m, 0.8), BLACK, 0.6)
    p.poly([(66, y + 10), (72, y + 10), (77, y + 26), (70, y + 27)], g, BLACK, 0.6)
    p.arc(58, y + 6, 68, y + 18, 0, 180, m, 1.3)
    if r.random() < 0.5:
        p.box(46, y - 11, 70, y - 5, BLACK, None, 0, 2)
        p.box(51, y - 6, 54, y, BLACK)
        p.box(62, y - 6, 65, y, BLACK)
    else:
        p.box(64, y - 4, 68, y, m)
    return p.done()


def shotgun(r):
    p, m, g = Pen(), r.choice(METALS), r.choice(WOODS)
    y = 44
    p.box(2, y, 60, y + 3.5, m, BLACK, 0.4)
    p.box(4, y + 4, 58, y + 7.5, shade(m, 0.8), BLACK, 0.4)
    p.box(26, y + 3, 46, y + 10, g, BLACK, 0.6, 2)
    p.box(56, y - 1, 74, y + 11, m, BLACK, 0.6, 2)
    p.poly([(72, y), (80, y + 3), (98, y + 9), (98, y + 25), (84, y + 18), (73, y + 11)], g, BLACK, 0.6)
    p.arc(60, y + 6, 72, y + 19, 0, 180, m, 1.4)
    p.stroke([(66, y + 10), (65, y + 15)], BLACK, 1.4)
    return p.done()


def dagger(r):
    p, m, g = Pen(), r.choice([(200, 206, 214), (170, 178, 188), (222, 226, 230)]), r.choice(WOODS + [BLACK, (120, 20, 24)])
    w, guard, hilt = r.uniform(4, 8), r.uniform(14, 24), r.uniform(22, 30)
    base = 98 - hilt
    p.poly([(50, 2), (50 + w, 14), (50 + w, base), (50 - w, base), (50 - w, 14)], m, BLACK)
    p.poly([(50, 2), (50 + w, 14), (50 + w, base), (50, base)], shade(m, 0.78))
    p.box(50 - guard, base - 1, 50 + guard, base + 4, r.choice([(200, 160, 50), (90, 92, 98)]), BLACK, 0.7, 2)
    p.box(46, base + 4, 54, 95, g, BLACK, 0.7, 1)
    for i in range(4):
        p.stroke([(46.5, base + 8 + i * 5), (53.5, base + 6 + i * 5)], shade(g, 1.7), 0.9)
    p.disc(50, 96, 4, (200, 160, 50), BLACK, 0.7)
    return p.done().rotate(r.choice([0, 45, -45]), Image.Resampling.BICUBIC, expand=True)


def blade(r):
    p, m, g = Pen(), r.choice([(206, 212, 220), (180, 188, 198)]), r.choice([BLACK, (60, 40, 26), (130, 24, 28), (30, 50, 90)])
    wide, hump = r.uniform(9, 17), r.uniform(0.2, 0.9)
    p.poly([(2, 50), (14, 50 + wide * hump), (34, 50 + wide), (64, 50 + wide), (64, 46), (20, 46)], m, BLACK)
    p.poly([(2, 50), (14, 50 + wide * hump), (34, 50 + wide), (64, 50 + wide), (64, 47 + wide), (30, 46 + wide)],
           shade(m, 1.15))
    p.poly([(64, 44), (96, 42), (98, 48), (94, 57), (64, 58)], g, BLACK)
    for x in (70, 79, 88):
        p.disc(x, 50, 1.6, (210, 210, 210))
    return p.done().rotate(r.choice([0, 30, -40, 45]), Image.Resampling.BICUBIC, expand=True)


def sword(r):
    p, m = Pen(), r.choice([(208, 214, 222), (184, 190, 200)])
    g, gold = r.choice([BLACK, (40, 40, 80), (110, 30, 30)]), r.choice([(206, 166, 56), (110, 112, 120)])
    bend = r.uniform(0, 10)
    left = [(4 + i * 3.35, 46 - bend * math.sin(math.pi * i / 20)) for i in range(21)]
    right = [(x, y + 6) for x, y in reversed(left)]
    p.poly(left + right[:-1] + [(2, left[0][1] + 1)], m, BLACK, 0.6)
    p.oval(69, 38, 74, 60, gold, BLACK, 0.6)
    p.box(73, 45, 97, 53, g, BLACK, 0.6, 2)
    for i in range(5):
        p.poly([(75 + i * 4.4, 49), (77 + i * 4.4, 46.5), (79 + i * 4.4, 49), (77 + i * 4.4, 51.5)], gold)
    return p.done().rotate(r.choice([30, 45, -45, 60]), Image.Resampling.BICUBIC, expand=True)


def round_bomb(r):
    p, c = Pen(), r.choice([(24, 24, 28), (50, 54, 66), (120, 26, 26), (40, 60, 46)])
    p.disc(44, 60, 36, c, BLACK, 1)
    p.oval(22, 36, 40, 52, shade(c, 2.2))
    p.poly([(58, 22), (74, 32), (68, 42), (52, 32)], shade(c, 1.5), BLACK)
    sway = r.uniform(-4, 8)
    p.stroke([(66, 28), (74, 18 + sway / 2), (84, 16 - sway / 2)], (150, 110, 60), 2.6)
    spark(p, 86, 15, r)
    return p.done()


def spark(p, x, y, r):
    points = []
    for i in range(18):
        a, d = i * math.pi / 9, (12 if i % 2 else 5) + r.uniform(-1, 2)
        points.append((x + d * math.cos(a), y + d * math.sin(a)))
    p.poly(points, (250, 170, 20), (220, 60, 20), 0.7)
    p.disc(x, y, 3.4, (255, 240, 140))


def dynamite(r):
    p, c, n = Pen(), r.choice([(206, 34, 34), (180, 40, 30), (220, 70, 30)]), r.choice([3, 3, 4])
    w = 60 / n
    for i in range(n):
        x = 20 + i * w
        p.box(x, 30, x + w - 0.6, 96, shade(c, 0.85 + 0.12 * (i % 2)), BLACK, 0.7, 2)
        p.box(x + 2, 33, x + w * 0.35, 93, shade(c, 1.35), None, 0, 1)
        p.oval(x, 27, x + w - 0.6, 34, (226, 190, 150), BLACK, 0.6)
    p.box(18, 46, 82, 53, BLACK)
    p.box(18, 76, 82, 83, BLACK)
    if r.random() < 0.5:
        p.box(34, 50, 66, 80, (60, 62, 68), BLACK, 0.8, 2)
        p.box(38, 54, 62, 64, (140, 220, 120))
        p.stroke([(44, 30), (30, 18), (34, 60)], (30, 90, 200), 1.6)
        p.stroke([(58, 30), (74, 14), (66, 58)], (230, 200, 30), 1.6)
    else:
        p.stroke([(50, 30), (56, 18), (66, 16)], (120, 90, 50), 2)
        spark(p, 70, 13, r)
    return p.done()


def grenade(r):
    p, c = Pen(), r.choice([(70, 88, 48), (52, 62, 44), (96, 96, 60), (50, 54, 58)])
    p.oval(20, 30, 76, 98, c, BLACK, 1)
    for x in (32, 48, 64):
        p.stroke([(x, 38 if x == 48 else 44), (x, 92 if x == 48 else 86)], shade(c, 0.55), 1.8)
    for y in (46, 60, 74, 86):
        p.stroke([(25, y), (71, y)], shade(c, 0.55), 1.8)
    p.box(38, 18, 60, 33, (120, 122, 120), BLACK, 0.8, 1)
    p.poly([(42, 12), (76, 16), (86, 50), (80, 52), (70, 24), (42, 20)], (140, 142, 138), BLACK, 0.8)
    p.disc(26, 22, 9, None, (190, 170, 60), 2.4)
    return p.done()


# --- alcohol and tobacco ---------------------------------------------------------------------------------------------

def bottle(p, x, half, neck, shoulder, glass, top=4):
    p.poly([(x - neck, top + 4), (x + neck, top + 4), (x + neck, shoulder - 10), (x + half, shoulder + 4), (x + half, 94),
            (x + half - 2, 97), (x - half + 2, 97), (x - half, 94), (x - half, shoulder + 4), (x - neck, shoulder - 10)],
           glass, BLACK)
    p.box(x - half + 2.5, shoulder + 6, x - half + 5.5, 92, shade(glass, 1.7), None, 0, 1)


def label(p, x, half, y0, y1, r):
    paper = r.choice([(244, 236, 214), (250, 250, 246), (190, 30, 40), (20, 30, 60)])
    ink = shade(paper, 0.4) if sum(paper) > 380 else (230, 200, 110)
    p.box(x - half + 0.5, y0, x + half - 0.5, y1, paper, BLACK, 0.5)
    p.disc(x, (y0 + y1) / 2 - 2, min(half * 0.45, (y1 - y0) * 0.25), ink)
    p.stroke([(x - half * 0.6, y1 - 4), (x + half * 0.6, y1 - 4)], ink, 1.2)


def wine(r):
    p, x = Pen(), r.choice([36, 50])
    glass = r.choice([(24, 60, 36), (60, 20, 30), (40, 44, 20)])
    bottle(p, x, 13, 4.5, 40, glass)
    p.box(x - 5, 3, x + 5, 18, r.choice([(150, 24, 40), (200, 160, 60), BLACK]), BLACK, 0.6, 1)
    label(p, x, 13, 56, 84, r)
    if x == 36:
        drink = r.choice([(130, 16, 40), (226, 190, 90)])
        p.poly([(58, 44), (90, 44), (86, 64), (78, 72), (70, 72), (62, 64)], (226, 234, 240, 230), (90, 96, 104), 0.8)
        p.poly([(60, 53), (88, 53), (86, 63), (78, 71), (70, 71), (62, 63)], drink)
        p.box(72.6, 72, 75.4, 93, (200, 208, 216), (90, 96, 104), 0.5)
        p.oval(62, 91, 86, 97, (214, 222, 228), (90, 96, 104), 0.7)
    return p.done()


def beer(r):
    p, glass = Pen(), r.choice([(120, 66, 20), (30, 90, 44), (90, 50, 20)])
    for x in ([50] if r.random() < 0.5 else [33, 67]):
        bottle(p, x, 13, 5, 38, glass)
        p.box(x - 6, 4, x + 6, 9, r.choice([(220, 180, 60), (200, 30, 40), (210, 210, 214)]), BLACK, 0.6)
        label(p, x, 13, 54, 80, r)
    return p.done()


def liquor(r):
    p, drink = Pen(), r.choice([(196, 116, 30), (220, 160, 60), (230, 236, 240)])
    half = r.uniform(16, 24)
    bottle(p, 40, half, 6, 30, drink)
    p.box(32, 2, 48, 14, r.choice([BLACK, (160, 24, 30), (200, 170, 70)]), BLACK, 0.7, 1)
    label(p, 40, half, 46, 80, r)
    p.poly([(70, 66), (97, 66), (94, 97), (73, 97)], (224, 232, 238, 235), (80, 84, 92), 0.8)
    p.poly([(71.5, 80), (95.6, 80), (94, 96), (73, 96)], drink if drink[0] < 225 else (214, 226, 236))
    p.box(76, 72, 85, 81, (244, 250, 255), (140, 160, 180), 0.5, 1)
    return p.done()


def baijiu(r):
    p, c = Pen(), r.choice([(244, 244, 240), (176, 24, 30), (30, 70, 150), (120, 70, 40)])
    belly = r.uniform(20, 28)
    p.poly([(44, 14), (56, 14), (57, 28), (50 + belly, 44), (50 + belly, 80), (50 + belly - 8, 97), (50 - belly + 8, 97),
            (50 - belly, 80), (50 - belly, 44), (43, 28)], c, BLACK)
    p.box(42, 4, 58, 16, (190, 26, 32), BLACK, 0.7, 2)
    p.poly([(50, 44), (50 + belly * 0.7, 64), (50, 84), (50 - belly * 0.7, 64)], (200, 28, 34) if c[1] > 100 else (238, 206, 120),
           BLACK, 0.6)
    p.stroke([(50, 54), (50, 74)], (250, 240, 200), 2.4)
    p.stroke([(44, 60), (56, 60)], (250, 240, 200), 2.4)
    return p.done()


def cigarettes(r):
    p, tilt = Pen(), r.uniform(-3, 3)
    for i in range(r.choice([1, 2, 3])):
        y = 36 + i * 15
        p.box(4, y, 34, y + 10, (214, 150, 76), BLACK, 0.7, 1)
        p.box(33, y, 88, y + 10, (250, 250, 248), BLACK, 0.7, 1)
        p.box(86, y + 0.5, 94, y + 9.5, (120, 120, 124), None, 0, 3)
        p.box(91, y + 1.5, 96, y + 8.5, (244, 90, 20), None, 0, 3)
        p.box(33, y + 0.6, 35, y + 9.4, (220, 180, 80))
    smoke(p, 92, 32, r)
    return p.done().rotate(18 + tilt, Image.Resampling.BICUBIC, expand=True)


def smoke(p, x, y, r):
    for i in range(4):
        p.arc(x - 10 + (i % 2) * 6, y - 8 - i * 8, x + (i % 2) * 6, y - i * 8, 90 if i % 2 else -90, 270 if i % 2 else 90,
              (150, 150, 156, 220), 2.2)


def cigarette_pack(r):
    p, c = Pen(), r.choice(VIVID + [(250, 250, 250)])
    for i in range(3):
        x = 34 + i * 12
        top = r.uniform(4, 16)
        p.box(x, top, x + 9, 40, (250, 250, 248), BLACK, 0.6, 1)
        p.box(x, top, x + 9, top + 13, (214, 150, 76), BLACK, 0.6, 1)
    p.box(24, 28, 80, 97, c, BLACK, 1, 2)
    p.poly([(24, 28), (80, 28), (80, 36), (24, 44)], (250, 250, 250) if sum(c) < 600 else (200, 40, 40))
    p.box(24, 80, 80, 97, (246, 246, 246), BLACK, 0.7)
    p.stroke([(30, 85), (74, 85)], BLACK, 1.4)
    p.stroke([(30, 90), (66, 90)], BLACK, 1.4)
    p.disc(52, 60, 11, (240, 210, 110), BLACK, 0.7)
    return p.done()


def cigar(r):
    p, c = Pen(), r.choice([(110, 66, 34), (86, 50, 26), (134, 86, 46)])
    for i in range(r.choice([1, 2])):
        y = 42 + i * 18
        p.box(4, y, 92, y + 13, c, BLACK, 0.8, 6)
        p.stroke([(12, y + 3), (84, y + 4)], shade(c, 1.4), 1)
        p.box(24, y, 34, y + 13, r.choice([(200, 30, 40), (220, 180, 60), (30, 60, 140)]), (230, 200, 90), 0.9)
        p.box(86, y + 0.6, 95, y + 12.4, (150, 150, 152), None, 0, 5)
        p.box(92, y + 3, 97, y + 10, (244, 90, 20), None, 0, 3)
    smoke(p, 93, 36, r)
    return p.done().rotate(15, Image.Resampling.BICUBIC, expand=True)


def ashtray(r):
    p, c = Pen(), r.choice([(170, 190, 200), (80, 84, 90), (160, 100, 60)])
    p.oval(6, 52, 94, 92, shade(c, 0.75), BLACK, 1)
    p.oval(6, 46, 94, 82, c, BLACK, 1)
    p.oval(16, 51, 84, 76, shade(c, 0.6), BLACK, 0.6)
    for i in range(r.choice([2, 3])):
        x = 24 + i * 16
        p.poly([(x, 62), (x + 30, 30 + i * 5), (x + 34, 34 + i * 5), (x + 5, 67)], (250, 250, 248), BLACK, 0.6)
        p.poly([(x + 22, 38 + i * 5), (x + 30, 30 + i * 5), (x + 34, 34 + i * 5), (x + 26, 43 + i * 5)], (214, 150, 76),
               BLACK, 0.6)
    smoke(p, 30, 46, r)
    return p.done()


# --- cards, dice, casino ---------------------------------------------------------------------------------------------

def pip(p, suit, x, y, s, colour):
    if suit == 0:
        p.poly([(x, y - s), (x + s * 0.7, y), (x, y + s), (x - s * 0.7, y)], colour)
    elif suit == 1:
        p.disc(x - s * 0.42, y - s * 0.3, s * 0.5, colour)
        p.disc(x + s * 0.42, y - s * 0.3, s * 0.5, colour)
        p.poly([(x - s * 0.88, y - s * 0.1), (x + s * 0.88, y - s * 0.1), (x, y + s)], colour)
    else:
        if suit == 2:
            p.poly([(x - s * 0.88, y + s * 0.2), (x + s * 0.88, y + s * 0.2), (x, y - s)], colour)
        else:
            p.disc(x, y - s * 0.5, s * 0.46, colour)
        p.disc(x - s * 0.45, y + s * 0.25, s * 0.48, colour)
        p.disc(x + s * 0.45, y + s * 0.25, s * 0.48, colour)
        p.poly([(x - s * 0.15, y), (x + s * 0.15, y), (x + s * 0.4, y + s), (x - s * 0.4, y + s)], colour)


def one_card(r):
    p, suit = Pen(), r.randrange(4)
    ink = (206, 24, 36) if suit < 2 else BLACK
    p.box(22, 8, 78, 92, (252, 252, 250), (60, 60, 64), 1.2, 5)
    pip(p, suit, 31, 19, 6, ink)
    pip(p, suit, 69, 81, 6, ink)
    layout = r.choice([[(50, 50, 17)], [(50, 34, 9), (50, 66, 9)],
                       [(40, 34, 8), (60, 34, 8), (40, 66, 8), (60, 66, 8)],
                       [(40, 32, 7), (60, 32, 7), (50, 50, 7), (40, 68, 7), (60, 68, 7)]])
    for x, y, s in layout:
        pip(p, suit, x, y, s, ink)
    return p.done()


def card_fan(r):
    n = r.choice([2, 3, 4, 5])
    out = Image.new("RGBA", (SIDE * 2, SIDE * 2), (0, 0, 0, 0))
    for i in range(n):
        card = one_card(r)
        layer = Image.new("RGBA", out.size, (0, 0, 0, 0))
        layer.paste(card, (SIDE // 2, SIDE // 4))
        angle = (n - 1) / 2 * 20 - i * 20
        out.alpha_composite(layer.rotate(angle, Image.Resampling.BILINEAR, center=(SIDE, SIDE * 1.45)))
    return out


def die_face(p, x, y, s, n, colour, ink):
    p.box(x, y, x + s, y + s, colour, BLACK, 0.8, s * 0.14)
    spots = {1: [(1, 1)], 2: [(0, 0), (2, 2)], 3: [(0, 0), (1, 1), (2, 2)], 4: [(0, 0), (0, 2), (2, 0), (2, 2)],
             5: [(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)], 6: [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)]}[n]
    for i, j in spots:
        p.disc(x + s * (0.24 + 0.26 * i), y + s * (0.24 + 0.26 * j), s * 0.09, ink)


def dice(r):
    p = Pen()
    colour = r.choice([(250, 250, 248), (210, 30, 40), (30, 80, 180), (30, 130, 70), BLACK])
    ink = (200, 20, 30) if sum(colour) > 600 else (252, 252, 252)
    spots = [(6, 30, 42), (52, 44, 42)] if r.random() < 0.5 else [(28, 4, 40), (6, 50, 42), (52, 52, 42)]
    for x, y, s in spots:
        die_face(p, x, y, s, r.randint(1, 6), colour, ink)
    return p.done().rotate(r.choice([0, 12, -15]), Image.Resampling.BICUBIC, expand=True)


def chips(r):
    p = Pen()
    for x in r.choice([[50], [30, 70], [22, 50, 78]]):
        half = 20 if x == 50 else 15
        colour = r.choice([(200, 26, 36), (24, 70, 170), (20, 120, 60), (30, 30, 34), (120, 40, 140)])
        height = r.randint(4, 9)
        for i in range(height):
            y = 88 - i * 7
            p.oval(x - half, y - 7, x + half, y + 9, shade(colour, 0.7), BLACK, 0.7)
            p.oval(x - half, y - 10, x + half, y + 6, colour, BLACK, 0.7)
            for k in (-0.85, -0.1, 0.65):
                p.box(x + half * k, y + 2, x + half * (k + 0.22), y + 7.5, (250, 250, 250))
        y = 88 - (height - 1) * 7
        p.oval(x - half * 0.6, y - 7, x + half * 0.6, y + 3, (250, 250, 250), colour, 1)
    return p.done()


def roulette(r):
    p = Pen()
    p.disc(50, 50, 48, (110, 64, 30), BLACK, 1)
    p.disc(50, 50, 43, (220, 180, 80))
    n = r.choice([18, 24, 20])
    for i in range(n):
        fill = (20, 130, 60) if i == 0 else ((200, 24, 34) if i % 2 else BLACK)
        p.pie(50, 50, 41, i * 360 / n, (i + 1) * 360 / n, fill)
    p.disc(50, 50, 27, (150, 92, 44), (220, 180, 80), 1.5)
    for i in range(4):
        a = i * math.pi / 2 + r.uniform(0, 0.6)
        p.stroke([(50, 50), (50 + 20 * math.cos(a), 50 + 20 * math.sin(a))], (226, 190, 90), 3)
    p.disc(50, 50, 7, (236, 204, 110), BLACK, 0.7)
    a = r.uniform(0, 6.28)
    p.disc(50 + 34 * math.cos(a), 50 + 34 * math.sin(a), 3.4, (252, 252, 252), BLACK, 0.5)
    return p.done()


def slot_machine(r):
    p, c = Pen(), r.choice([(200, 26, 40), (110, 40, 150), (30, 70, 170), (210, 150, 30)])
    p.poly([(18, 20), (30, 4), (66, 4), (78, 20)], (240, 200, 70), BLACK)
    p.box(14, 18, 82, 96, c, BLACK, 1, 4)
    p.box(20, 34, 76, 62, (250, 250, 246), BLACK, 1.2, 2)
    for i in range(3):
        x = 21 + i * 18.5
        p.box(x, 35, x + 17, 61, (255, 255, 255), (120, 120, 120), 0.6)
        kind = r.randrange(3)
        if kind == 0:
            p.stroke([(x + 4, 42), (x + 13, 42), (x + 7, 55)], (210, 20, 30), 3)
        elif kind == 1:
            p.disc(x + 6, 52, 4, (210, 20, 40))
            p.disc(x + 12, 53, 4, (210, 20, 40))
            p.stroke([(x + 6, 50), (x + 10, 40), (x + 12, 50)], (30, 120, 40), 1)
        else:
            p.poly([(x + 8.5, 40), (x + 14, 48), (x + 8.5, 57), (x + 3, 48)], (30, 150, 210))
    p.box(24, 72, 72, 90, shade(c, 0.5), BLACK, 0.8, 2)
    for x in (34, 44, 54, 62):
        p.disc(x, 86, 4, (240, 200, 70), BLACK, 0.5)
    p.stroke([(83, 54), (91, 52), (91, 30)], (150, 152, 158), 3)
    p.disc(91, 26, 6, (220, 30, 40), BLACK, 0.7)
    return p.done()


# --- ordinary goods --------------------------------------------------------------------------------------------------

def smartphone(r):
    p, body = Pen(), r.choice([BLACK, (60, 62, 70), (236, 236, 238), (214, 180, 150), (40, 60, 110)])
    half = r.uniform(21, 25)
    p.box(50 - half, 3, 50 + half, 97, body, (90, 90, 96), 1, 7)
    top, low = r.choice(VIVID), r.choice(VIVID)
    for i in range(40):
        t = i / 39
        p.box(53 - half, 11 + i * 1.95, 47 + half, 13.2 + i * 1.95,
              tuple(int(a * (1 - t) + b * t) for a, b in zip(top, low)))
    if r.random() < 0.75:
        for row in range(4):
            for col in range(3):
                x = 50 - half + 6 + col * (half * 2 - 8) / 3
                p.box(x, 18 + row * 15, x + 9.5, 27.5 + row * 15, r.choice(VIVID + [(250, 250, 250)]), None, 0, 2)
    else:
        p.stroke([(40, 34), (60, 34)], (255, 255, 255), 5)
    p.disc(50, 92.8, 2.6, None, (150, 150, 156), 0.8)
    p.stroke([(45, 7), (55, 7)], (120, 120, 126), 1.2)
    return p.done()


def shirt(r):
    p, c = Pen(), r.choice(VIVID)
    long = r.random() < 0.4
    cuff = 72 if long else 46
    p.poly([(36, 8), (64, 8), (82, 16), (98, cuff), (84, cuff + 6), (75, 36), (75, 95), (25, 95), (25, 36),
            (16, cuff + 6), (2, cuff), (18, 16)], c, BLACK, 1)
    p.poly([(38, 8), (62, 8), (56, 18), (44, 18)], shade(c, 0.6), BLACK, 0.7)
    mode = r.randrange(3)
    if mode == 0:
        for y in range(42, 92, 12):
            p.box(25.6, y, 74.4, y + 5, shade(c, 1.5))
    elif mode == 1:
        p.disc(50, 48, 11, (250, 250, 250))
    else:
        p.stroke([(50, 18), (50, 94)], shade(c, 0.6), 1)
        for y in range(26, 92, 13):
            p.disc(50, y, 1.8, (250, 250, 250))
    return p.done()


def dress(r):
    p, c = Pen(), r.choice(VIVID)
    hem = r.uniform(28, 40)
    p.poly([(38, 6), (43, 6), (46, 20), (54, 20), (57, 6), (62, 6), (66, 26), (60, 46), (50 + hem, 96), (50 - hem, 96),
            (40, 46), (34, 26)], c, BLACK, 1)
    p.box(39, 42, 61, 48, shade(c, 0.5), BLACK, 0.5)
    if r.random() < 0.6:
        for i in range(14):
            y = r.uniform(54, 92)
            p.disc(50 + r.uniform(-0.8, 0.8) * (10 + (y - 46) * 0.5), y, 2, (252, 250, 240))
    return p.done()


def trousers(r):
    p, c = Pen(), r.choice([(40, 70, 130), (60, 60, 66), (150, 120, 80), (90, 110, 140), (60, 80, 60)])
    p.poly([(28, 5), (72, 5), (80, 95), (57, 95), (50, 36), (43, 95), (20, 95)], c, BLACK, 1)
    p.box(28, 5, 72, 12, shade(c, 0.7), BLACK, 0.7)
    p.stroke([(50, 12), (50, 34)], shade(c, 0.6), 1)
    p.arc(26, 6, 42, 24, 0, 90, shade(c, 1.5), 1)
    p.arc(58, 6, 74, 24, 90, 180, shade(c, 1.5), 1)
    return p.done()


def bicycle(r):
    p, c, tyre = Pen(), r.choice(VIVID), BLACK
    y, radius = 66, r.uniform(18, 21)
    for x in (23, 77):
        p.disc(x, y, radius, None, tyre, 3)
        p.disc(x, y, radius - 3, None, (150, 154, 160), 0.8)
        for i in range(8):
            a = i * math.pi / 8
            dx, dy = (radius - 2) * math.cos(a), (radius - 2) * math.sin(a)
            p.stroke([(x - dx, y - dy), (x + dx, y + dy)], (140, 144, 150), 0.5)
        p.disc(x, y, 2.6, (90, 92, 96))
    drop = r.uniform(0, 8)
    p.stroke([(23, y), (36, 38), (48, 68), (23, y)], c, 3)
    p.stroke([(36, 38 + drop), (66, 36 + drop * 0.4), (48, 68)], c, 3)
    p.stroke([(77, y), (65, 30)], c, 3)
    p.stroke([(37, 40), (34, 30)], (80, 82, 86), 2)
    p.stroke([(27, 29), (42, 29)], BLACK, 4)
    p.stroke([(65, 30), (58, 26), (72, 24), (76, 30)], BLACK, 2.4)
    p.disc(48, 68, 6, None, (70, 72, 76), 1.8)
    p.stroke([(48, 68), (54, 78)], BLACK, 2)
    if r.random() < 0.4:
        p.poly([(68, 34), (86, 34), (83, 48), (71, 48)], (190, 140, 80), (110, 70, 30), 0.8)
    return p.done()


def mug(r):
    p, c = Pen(), r.choice(VIVID + [(246, 246, 244)])
    wide = r.uniform(26, 31)
    p.arc(42 + wide - 12, 38, 42 + wide + 22, 78, -110, 110, shade(c, 0.8), 6)
    p.poly([(42 - wide, 28), (42 + wide, 28), (42 + wide - 3, 90), (42 - wide + 3, 90)], c, BLACK, 1)
    p.oval(45 - wide, 84, 39 + wide, 96, c, BLACK, 1)
    p.box(45.6 - wide, 80, 38.4 + wide, 90, c)
    p.oval(42 - wide, 20, 42 + wide, 36, shade(c, 1.2), BLACK, 1)
    p.oval(45 - wide, 22, 39 + wide, 35, r.choice([(84, 46, 22), (190, 130, 60), (110, 140, 60)]))
    if r.random() < 0.6:
        p.box(42.6 - wide, 54, 41.4 + wide - 1, 64, r.choice(VIVID))
    else:
        p.disc(42, 60, 11, r.choice(VIVID))
    for x in (30, 42, 54):
        p.arc(x - 4, 3, x + 4, 11, 90, 270, (170, 170, 176), 1.8)
        p.arc(x - 4, 11, x + 4, 19, -90, 90, (170, 170, 176), 1.8)
    return p.done()


def watch(r):
    p, c = Pen(), r.choice([BLACK, (120, 70, 36), (30, 60, 130), (180, 30, 50), (160, 164, 170)])
    rim = r.choice([(214, 176, 70), (176, 180, 188), (70, 72, 78)])
    p.poly([(36, 2), (64, 2), (68, 30), (32, 30)], c, BLACK, 0.8)
    p.poly([(32, 70), (68, 70), (64, 98), (36, 98)], c, BLACK, 0.8)
    dial(p, 50, 50, 27, rim, r.choice([(252, 252, 250), (24, 30, 50), (236, 226, 200)]), r)
    p.box(76, 47, 82, 53, rim, BLACK, 0.6, 1)
    return p.done()


def dial(p, x, y, radius, rim, face, r):
    p.disc(x, y, radius, rim, BLACK, 1)
    p.disc(x, y, radius * 0.85, face, BLACK, 0.6)
    ink = BLACK if sum(face) > 380 else (250, 250, 250)
    for i in range(12):
        a = i * math.pi / 6
        inner = 0.64 if i % 3 == 0 else 0.7
        p.stroke([(x + radius * inner * math.cos(a), y + radius * inner * math.sin(a)),
                  (x + radius * 0.78 * math.cos(a), y + radius * 0.78 * math.sin(a))], ink, radius * 0.05)
    for length, width in ((0.4, 0.08), (0.62, 0.05)):
        a = r.uniform(0, 6.28)
        p.stroke([(x, y), (x + radius * length * math.cos(a), y + radius * length * math.sin(a))], ink, radius * width)
    p.disc(x, y, radius * 0.07, (200, 30, 40))


def wall_clock(r):
    p, rim = Pen(), r.choice(VIVID)
    if r.random() < 0.5:
        p.disc(26, 16, 12, shade(rim, 0.8), BLACK, 0.8)
        p.disc(74, 16, 12, shade(rim, 0.8), BLACK, 0.8)
        p.stroke([(28, 84), (20, 95)], BLACK, 4)
        p.stroke([(72, 84), (80, 95)], BLACK, 4)
        dial(p, 50, 54, 40, rim, (252, 252, 248), r)
    else:
        dial(p, 50, 50, 47, rim, (252, 252, 248), r)
    return p.done()


def handbag(r):
    p, c = Pen(), r.choice(VIVID)
    top = r.uniform(34, 42)
    p.arc(28, 6, 72, top + 36, 180, 360, shade(c, 0.6), 4)
    flare = r.uniform(0, 10)
    p.poly([(18, top), (82, top), (86 + flare, 94), (14 - flare, 94)], c, BLACK, 1)
    p.poly([(18, top), (82, top), (70, top + 24), (30, top + 24)], shade(c, 0.8), BLACK, 0.9)
    p.box(45, top + 19, 55, top + 30, (230, 190, 80), BLACK, 0.7, 1)
    return p.done()


def suitcase(r):
    p, c = Pen(), r.choice(VIVID)
    p.box(36, 2, 64, 22, None, (90, 92, 96), 2.4, 2)
    p.box(22, 18, 78, 92, c, BLACK, 1.2, 6)
    for x in (32, 44, 56, 68):
        p.stroke([(x, 24), (x, 86)], shade(c, 0.7), 2)
    p.disc(30, 94, 4, BLACK)
    p.disc(70, 94, 4, BLACK)
    return p.done()


def closed_book(r):
    p, c = Pen(), r.choice(VIVID)
    p.poly([(16, 14), (24, 6), (84, 6), (84, 86), (76, 94), (16, 94)], (246, 242, 228), BLACK, 1)
    p.box(14, 14, 76, 95, c, BLACK, 1, 1)
    p.box(14, 14, 22, 95, shade(c, 0.65), BLACK, 0.6)
    p.box(32, 28, 68, 46, (250, 244, 220), BLACK, 0.5)
    p.stroke([(37, 34), (63, 34)], (90, 80, 70), 1.6)
    p.stroke([(40, 40), (60, 40)], (90, 80, 70), 1.6)
    if r.random() < 0.5:
        p.disc(50, 70, 9, (240, 214, 110))
    return p.done()


def sneaker(r):
    p, c = Pen(), r.choice(VIVID)
    p.poly([(6, 30), (12, 26), (22, 34), (36, 30), (54, 46), (76, 56), (94, 62), (97, 74), (6, 74)], c, BLACK, 1)
    p.poly([(4, 72), (98, 72), (97, 82), (88, 85), (8, 85), (4, 80)], (250, 250, 250), BLACK, 1)
    p.poly([(80, 57), (94, 62), (97, 72), (74, 72)], shade(c, 1.3), BLACK, 0.6)
    stripe = r.choice([(250, 250, 250), BLACK, (250, 220, 60)])
    for i in range(r.choice([1, 3])):
        p.stroke([(26 + i * 9, 70), (38 + i * 9, 46 + i * 3)], stripe, 3)
    for i in range(4):
        p.stroke([(38 + i * 6, 36 + i * 5), (46 + i * 6, 34 + i * 5)], (250, 250, 250), 1.8)
    return p.done()


PAINTERS = {f.__name__: f for f in (
    pistol, revolver, rifle, shotgun, dagger, blade, sword, round_bomb, dynamite, grenade, wine, beer, liquor, baijiu,
    cigarettes, cigarette_pack, cigar, ashtray, one_card, card_fan, dice, chips, roulette, slot_machine, smartphone,
    shirt, dress, trousers, bicycle, mug, watch, wall_clock, handbag, suitcase, closed_book, sneaker)}


def paint(name, variant):
    return PAINTERS[name](random.Random(f"drawn/{name}/{variant}"))
