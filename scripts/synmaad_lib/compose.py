"""Drawing one ad: background, object(s), copy bands, and for unreadable ads the damage.

The canvas is divided first: bands for the copy are cut off its edges, and the objects are fitted, large, into what is
left, so that words never cover them. Everything random comes from the generator of the sample.
"""
import functools
import io
import math
import re

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFont

from . import objects

FONTS = [("/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc", 2, "fonts-noto-cjk"),
         ("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc", 2, "fonts-noto-cjk"),
         ("/usr/share/fonts/opentype/noto/NotoSerifCJK-Bold.ttc", 2, "fonts-noto-cjk"),
         ("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc", 0, "fonts-wqy-microhei")]

# (width : height) of ads as platforms sell them.
SHAPES = [(1, 1), (1, 1), (4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (4, 5)]
LONG_SIDES = [480, 512, 560, 600, 640, 640, 720, 800, 960, 1080, 1280]
CAPTION_LONG_SIDES = [144, 144, 144, 160]
DRAWN_AT_MOST = 640     # scenes are drawn at this long side and enlarged: drawing costs, detail beyond it tells nothing


@functools.lru_cache(maxsize=256)
def font(index, size):
    path, face, package = FONTS[index]
    return ImageFont.truetype(objects.need(path, package), size, index=face, layout_engine=ImageFont.Layout.BASIC)


def luma(colour):
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


# --- background ------------------------------------------------------------------------------------------------------

def random_colour(rng):
    """Pastel, vivid or deep, in that order of frequency."""
    hue, draw = rng.random() * 6, rng.random()
    if draw < 0.5:
        saturation, value = rng.uniform(0.05, 0.35), rng.uniform(0.85, 1)
    elif draw < 0.85:
        saturation, value = rng.uniform(0.4, 0.85), rng.uniform(0.6, 0.95)
    else:
        saturation, value = rng.uniform(0.2, 0.7), rng.uniform(0.25, 0.45)
    channels = []
    for n in (5, 3, 1):
        k = (n + hue) % 6
        channels.append(int(255 * value * (1 - saturation * max(0, min(k, 4 - k, 1)))))
    return tuple(channels)


@functools.lru_cache(maxsize=None)
def object_colour(spec):
    small = np.asarray(objects.load(spec)[1], dtype=np.float32)
    weight = small[..., 3:4]
    return tuple((small[..., :3] * weight).sum((0, 1)) / max(1.0, weight.sum()))


def contrasting_colour(rng, colour):
    """The most different of three random colours: objects must stand out at 112 pixels."""
    candidates = [random_colour(rng) for _ in range(3)]
    return max(candidates, key=lambda c: abs(luma(c) - luma(colour)) + 0.4 * sum(abs(a - b) for a, b in zip(c, colour)))


def near(rng, colour, spread):
    return tuple(max(0, min(255, int(c + rng.uniform(-spread, spread)))) for c in colour)


def blend(size, mask, a, b):
    return Image.composite(Image.new("RGB", size, a), Image.new("RGB", size, b), mask.resize(size))


def background(rng, size, avoid):
    a = contrasting_colour(rng, avoid)
    b = near(rng, a, 60)
    kind = rng.randrange(8)
    if kind in (0, 1):
        return Image.new("RGB", size, a)
    if kind in (2, 3):
        slope = Image.linear_gradient("L").rotate(rng.choice([0, 90, 45, 135]), Image.Resampling.BILINEAR)
        return blend(size, slope.crop((37, 37, 219, 219)), a, b)     # inside the corners that turning leaves black
    if kind == 4:
        return blend(size, Image.radial_gradient("L"), a, b)
    image = Image.new("RGB", size, a)
    if kind == 5:
        stripes(rng, image, near(rng, a, 35))
    elif kind == 6:
        dots(rng, image, near(rng, a, 45))
    else:
        grain(rng, image)
    return image


def stripes(rng, image, colour):
    draw, (w, h) = ImageDraw.Draw(image), image.size
    step, lean = rng.uniform(0.06, 0.16) * min(w, h), rng.choice([0, h, -h])
    x = -2.0 * h
    while x < w + 2 * h:
        draw.line((x, 0, x + lean, h), fill=colour, width=max(1, int(step / 2)))
        x += step


def dots(rng, image, colour):
    draw, (w, h) = ImageDraw.Draw(image), image.size
    for _ in range(rng.randint(10, 40)):
        x, y, r = rng.uniform(0, w), rng.uniform(0, h), rng.uniform(0.01, 0.08) * min(w, h)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=near(rng, colour, 12))


def grain(rng, image):
    """Paper or plaster: fine noise around the flat colour."""
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 10, (48, 48)).astype(np.float32)
    tile = Image.fromarray((128 + noise).clip(0, 255).astype(np.uint8)).resize(image.size)
    image.paste(ImageChops.overlay(image, Image.merge("RGB", [tile] * 3)))


# --- objects ---------------------------------------------------------------------------------------------------------

def turn_hue(image, amount):
    alpha = image.getchannel("A")
    hue, saturation, value = image.convert("RGB").convert("HSV").split()
    shift = int(amount * 255) % 256
    hue = hue.point([(v + shift) % 256 for v in range(256)])
    out = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    out.putalpha(alpha)
    return out


def jitter(rng, image, recolour):
    if recolour >= 0.1 and rng.random() < 0.6 or recolour < 0.1:
        image = turn_hue(image, rng.uniform(-recolour, recolour))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    alpha = image.getchannel("A")
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.85, 1.15))
    image.putalpha(alpha)
    return image


def tilt_for(rng, image, box):
    """Small for ordinary shapes; long thin objects may lie across the diagonal, where they are drawn larger."""
    w, h = image.size
    if max(w, h) > 2.2 * min(w, h):
        along_box = (w > h) == (box[0] > box[1])
        base = rng.choice([0, 25, -25, 38, -38]) if along_box else rng.choice([40, -40, 55, -55])
        return base + rng.uniform(-6, 6)
    return rng.uniform(-14, 14)


def place(rng, canvas, spec, box, small, fill):
    """Draws one object as large as `fill` of the box (x0, y0, x1, y1) allows, somewhere inside it."""
    x0, y0, x1, y1 = box
    bw, bh = x1 - x0, y1 - y0
    image = objects.load(spec)[1 if small else 0]
    category = next(c for c in objects.CATEGORIES if spec in c.objects)
    image = jitter(rng, image, category.recolour)
    angle = tilt_for(rng, image, (bw, bh))
    c, s = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    w, h = image.size
    scale = fill * min(bw / (w * c + h * s), bh / (w * s + h * c))
    stretch = rng.uniform(0.92, 1.0)
    image = image.resize((max(2, int(w * scale * stretch)), max(2, int(h * scale))), Image.Resampling.BILINEAR,
                         reducing_gap=2.0)
    image = image.convert("RGBa").rotate(angle, Image.Resampling.BILINEAR, expand=True).convert("RGBA")
    x = x0 + rng.uniform(0.2, 0.8) * max(0, bw - image.width)
    y = y0 + rng.uniform(0.2, 0.8) * max(0, bh - image.height)
    if rng.random() < 0.3:
        soft_shadow(canvas, image, int(x), int(y), small)
    canvas.paste(image, (int(x), int(y)), image)


def soft_shadow(canvas, image, x, y, small):
    shift = 1 if small else max(3, image.width // 40)
    shadow = image.getchannel("A").point(lambda a: a * 2 // 5)
    canvas.paste((30, 30, 36), (x + shift, y + shift), shadow)


def plate(rng, canvas, box):
    """A light disc or card behind the object, as many real ads have."""
    x0, y0, x1, y1 = box
    draw = ImageDraw.Draw(canvas)
    colour = near(rng, (246, 246, 242), 8)
    if rng.random() < 0.5:
        r = min(x1 - x0, y1 - y0) / 2
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=colour)
    else:
        draw.rounded_rectangle(box, (x1 - x0) * 0.06, fill=colour)


def halves(box, n):
    if n == 1:
        return [box]
    x0, y0, x1, y1 = box
    if x1 - x0 >= (y1 - y0) * 0.9:
        middle = (x0 + x1) / 2
        return [(x0, y0, middle, y1), (middle, y0, x1, y1)]
    middle = (y0 + y1) / 2
    return [(x0, y0, x1, middle), (x0, middle, x1, y1)]


# --- copy ------------------------------------------------------------------------------------------------------------

NOT_FIRST = "，。！：、,.!:"


def wrap(text, width, size, index):
    """Greedy lines: Chinese breaks anywhere but before punctuation, English at spaces."""
    f, lines, line = font(index, size), [], ""
    for piece in re.findall(r"[!-~]+ ?|.", text):
        if line and piece not in NOT_FIRST and f.getlength(line + piece.rstrip()) > width:
            lines.append(line)
            line = piece.lstrip()
        else:
            line += piece
    return lines + [line] if line else lines


def typeset(text, width, height, index):
    """(size, lines) at the largest size, trying from big to small, at which the whole text fits the box."""
    size = int(min(height / 1.3, 1.15 * math.sqrt(width * height / (1.3 * max(4, len(text))))))
    while True:
        size = max(6, size)
        lines = wrap(text, width, size, index)
        widest = max(font(index, size).getlength(line) for line in lines)
        if size == 6 or len(lines) * size * 1.25 <= height and widest <= width * 1.03:
            return size, lines
        size = int(size * 0.85)


def set_text(rng, canvas, text, box, colour):
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    index = rng.randrange(len(FONTS))
    size, lines = typeset(text, width, height, index)
    draw, f = ImageDraw.Draw(canvas), font(index, size)
    y = y0 + max(0, (height - len(lines) * size * 1.25) / 2)
    centred = rng.random() < 0.6
    for line in lines:
        x = x0 + (max(0, width - f.getlength(line)) / 2 if centred else 0)
        draw.text((int(x), int(y)), line, font=f, fill=colour)
        y += size * 1.25


def ink_on(rng, colour):
    if luma(colour) > 140:
        return rng.choice([(20, 20, 24), (150, 10, 20), (20, 40, 120), (50, 30, 20)])
    return rng.choice([(255, 255, 255), (255, 236, 120), (250, 244, 230)])


def bands(rng, size):
    """Rectangles for copy at the edges, and the free rectangle left for objects."""
    w, h = size
    x0, y0, x1, y1 = 0, 0, w, h
    kind = rng.choice(["top", "bottom", "bottom", "both"] + (["left", "right"] if w > h * 1.25 else []))
    out = []
    if kind in ("top", "both"):
        y0 = int(h * rng.uniform(0.13, 0.2))
        out.append((0, 0, w, y0))
    if kind in ("bottom", "both"):
        y1 = int(h * rng.uniform(0.8, 0.87))
        out.append((0, y1, w, h))
    if kind == "left":
        x0 = int(w * rng.uniform(0.26, 0.34))
        out.append((0, 0, x0, h))
    if kind == "right":
        x1 = int(w * rng.uniform(0.66, 0.74))
        out.append((x1, 0, w, h))
    return out, (x0, y0, x1, y1)


def in_two(text):
    """Headline and second line, cut at the middle-most mark or space if there is one."""
    cuts = [m.end() for m in re.finditer(r"[，：！, ]+", text[:-2])]
    cut = min(cuts, key=lambda c: abs(c - len(text) / 2)) if cuts else len(text) // 2
    return [text[:cut].rstrip("，, "), text[cut:]]


def write_bands(rng, canvas, rectangles, text, second):
    solid = rng.random() < 0.65
    colour = random_colour(rng)
    draw = ImageDraw.Draw(canvas)
    words = [text, second] if len(rectangles) == 2 else [text]
    if len(rectangles) == 2 and not second:
        words = in_two(text)
    for rectangle, line in zip(rectangles, words):
        x0, y0, x1, y1 = rectangle
        ground = colour
        if solid:
            draw.rectangle(rectangle, fill=colour)
        else:
            ground = canvas.crop(rectangle).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        pad = int(0.06 * min(x1 - x0, y1 - y0)) + 2
        if line:
            set_text(rng, canvas, line, (x0 + pad * 2, y0 + pad, x1 - pad * 2, y1 - pad), ink_on(rng, ground))


# --- damage ----------------------------------------------------------------------------------------------------------

def blur(rng, image):
    """Shrunk to about a dozen pixels and back: the shape is gone."""
    side = rng.randint(6, 10)
    tiny = image.resize((side, side), Image.Resampling.BOX)
    return tiny.resize(image.size, Image.Resampling.BICUBIC)


def blocks(rng, image):
    """The mosaic that a starved JPEG encoder leaves."""
    w, h = image.size
    side = rng.randint(7, 11)
    tiny = image.resize((side, max(4, side * h // w)), Image.Resampling.BOX)
    data = io.BytesIO()
    tiny.resize((side * 8, tiny.height * 8), Image.Resampling.NEAREST).save(data, "JPEG", quality=rng.randint(1, 6))
    return Image.open(data).convert("RGB").resize((w, h), Image.Resampling.NEAREST)


def darken(rng, image):
    return image.point([int(v * k) for k in [rng.uniform(0.03, 0.09)] for v in range(256)] * 3)


def noise(rng, image):
    """Grains about 1/60 of the picture wide, so that shrinking to 112 pixels does not average them away."""
    n = rng.randint(48, 72)
    grains = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (n, n, 3), dtype=np.uint8)
    cover = Image.fromarray(grains).resize(image.size, Image.Resampling.NEAREST)
    return Image.blend(image, cover, rng.uniform(0.78, 0.92))


def damage(rng, image):
    return rng.choice([blur, blur, blocks, darken, noise])(rng, image)


# --- the whole picture -----------------------------------------------------------------------------------------------

def scene(rng, ad, size, small):
    """The undamaged picture at the drawing size."""
    avoid = object_colour(ad.specs[0])
    canvas = background(rng, size, avoid)
    rectangles, free = bands(rng, size)
    x0, y0, x1, y1 = free
    margin = 0.02 * min(x1 - x0, y1 - y0)
    box = (x0 + margin, y0 + margin, x1 - margin, y1 - margin)
    if luma(avoid) < 175 and rng.random() < 0.15:
        plate(rng, canvas, box)
    write_bands(rng, canvas, rectangles, ad.text, ad.assist)
    for spec, part in zip(ad.specs, halves(box, len(ad.specs))):
        place(rng, canvas, spec, part, small, rng.uniform(0.84, 1.0) if len(ad.specs) > 1 else rng.uniform(0.74, 0.98))
    return damage(rng, canvas) if ad.blurred else canvas


def dimensions(rng, long_side):
    a, b = rng.choice(SHAPES)
    scale = long_side / max(a, b)
    return round(a * scale), round(b * scale)


def draw_ad(rng, ad, max_side):
    """(image, extension, save options) of an ad at its stored size."""
    size = dimensions(rng, min(max_side, rng.choice(LONG_SIDES)))
    shrink = min(1.0, DRAWN_AT_MOST / max(size))
    image = scene(rng, ad, (round(size[0] * shrink), round(size[1] * shrink)), False)
    if shrink < 1:
        image = image.resize(size, Image.Resampling.BICUBIC)
    if rng.random() < 0.15 and max(size) <= 640:
        return image, "png", {"compress_level": 3}
    return image, "jpg", {"quality": rng.randint(76, 93)}


def draw_caption(rng, ad):
    size = dimensions(rng, rng.choice(CAPTION_LONG_SIDES))
    return scene(rng, ad, size, True), "jpg", {"quality": 90}
