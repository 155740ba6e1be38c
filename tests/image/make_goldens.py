#!/usr/bin/env python3
"""Writes goldens/ and hostile/ beside itself: small images and what Pillow and transformers make of them.

Needs python3-pil, python3-numpy, python3-torch and python3-transformers (Debian sid: Pillow 13, transformers 5.12).
Run: python3 make_goldens.py. The output is deterministic for given library versions.

goldens/index.txt, one line an image:
    NAME WIDTH HEIGHT DECODED R32 F32 R56 R224
  WIDTH HEIGHT: upright size; DECODED: hash of the RGB bytes of exif_transpose(open(NAME)).convert("RGB");
  R*: hash of Pillow's bicubic resize of that to S x S; F32: hash of the float bytes of BlipImageProcessorPil's
  pixel_values at 32 x 32. Hashes are 64-bit FNV-1a.
goldens/NAME.u8 for every JPEG (decoders differ, so bytes are compared with a tolerance): 32x32x3 then 56x56x3.
goldens/resize.txt: NAME OUT_WIDTH OUT_HEIGHT HASH, other shapes of the resize.
goldens/box.txt: NAME LEFT TOP RIGHT BOTTOM OUT_WIDTH OUT_HEIGHT HASH, the resize of all but so much of the outermost pixels.
goldens/NAME.CONFIG.f32: pixel_values of the processor with the configuration goldens/CONFIG.json.
"""
import io, json, os, struct, warnings, zlib

import numpy as np
from PIL import Image, ImageOps
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "goldens")
HOSTILE = os.path.join(HERE, "hostile")
rng = np.random.default_rng(20240)
warnings.simplefilter("ignore")


def fnv(data):
    h = 0xCBF29CE484222325
    for b in bytes(data):
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def scene(w, h, channels=3, noise=12, zoom=1):
    """Gradients, hard edges (bicubic overshoots there, so clamping is exercised) and some noise."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64) / zoom
    out = np.zeros((h, w, channels))
    for c in range(channels):
        out[..., c] = 127 + 100 * np.sin(x / (5 + 3 * c) + c) * np.cos(y / (7 + 2 * c))
    out[h // 4 : h // 2 + 1, w // 4 : w // 2 + 1, 0] = 255
    out[h // 2 :, w // 2 :, channels - 1] = 0
    out += rng.normal(0, noise, out.shape)
    return np.clip(out, 0, 255).astype(np.uint8)


# -- PNG by hand: Pillow writes neither interlace nor 16-bit colour nor odd depths --------------------------------

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_rows(samples, depth, filters):
    """samples [h][w][n] of ints to filtered scan lines; filters: the filter types to cycle through."""
    h, w, n = samples.shape
    bpp = max(1, n * depth // 8)
    out, prev = bytearray(), None
    for r in range(h):
        flat = samples[r].reshape(-1)
        if depth == 16:
            line = flat.astype(">u2").tobytes()
        elif depth == 8:
            line = flat.astype(np.uint8).tobytes()
        else:
            bits = ((flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8).reshape(-1)
            line = np.packbits(bits).tobytes()
        line = np.frombuffer(line, np.uint8).astype(int)
        prev = np.zeros_like(line) if prev is None else prev
        left = np.concatenate([np.zeros(bpp, int), line])[: len(line)]
        upleft = np.concatenate([np.zeros(bpp, int), prev])[: len(line)]
        f = filters[r % len(filters)]
        if f == 4:
            p = left + prev - upleft
            pa, pb, pc = abs(p - left), abs(p - prev), abs(p - upleft)
            guess = np.where((pa <= pb) & (pa <= pc), left, np.where(pb <= pc, prev, upleft))
        else:
            guess = [0 * line, left, prev, (left + prev) // 2][f]
        out.append(f)
        out += ((line - guess) & 255).astype(np.uint8).tobytes()
        prev = line
    return bytes(out)


def png(samples, depth, color, interlace=0, filters=(0, 1, 2, 3, 4), before=(), after=(), idat=1 << 30):
    h, w, _ = samples.shape
    if interlace:
        raw = b""
        for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
            part = samples[y0::dy, x0::dx]
            if part.size:
                raw += pack_rows(part, depth, filters)
    else:
        raw = pack_rows(samples, depth, filters)
    z = zlib.compress(raw, 9)
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, color, 0, 0, interlace))
    for kind, data in before:
        body += chunk(kind, data)
    for i in range(0, len(z), idat):
        body += chunk(b"IDAT", z[i : i + idat])
    for kind, data in after:
        body += chunk(kind, data)
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def tiff(orientation, order="<", kind=3):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + ("H2x" if kind == 3 else "I"), orientation)
    other = struct.pack(order + "HHI", 0x011A, 5, 1) + struct.pack(order + "I", 8)
    return mark + struct.pack(order + "IH", 8, 2) + struct.pack(order + "HHI", 0x0112, kind, 1) + value + other + b"\0\0\0\0"


XMP = (b'<?xpacket?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
       b'tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>')


def jpeg(pixels, mode=None, **options):
    f = io.BytesIO()
    Image.fromarray(pixels, mode).save(f, "JPEG", **options) if mode is None else Image.frombytes(
        mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes()).save(f, "JPEG", **options)
    return f.getvalue()


def images():
    pal = rng.integers(0, 256, 768, dtype=np.uint8).tobytes()
    index = scene(61, 45)[..., :1]
    small = lambda bits: index >> (8 - bits)
    s16 = lambda n, w=40, h=33: (scene(w, h, n).astype(np.int64) * 257 + rng.integers(-120, 120, (h, w, n))).clip(0, 65535)

    yield "rgb_8x8.png", png(scene(8, 8), 8, 2)
    yield "rgb_1x1.png", png(scene(1, 1), 8, 2)
    yield "rgb_2x3.png", png(scene(2, 3), 8, 2)
    yield "rgb_32x32_same_size.png", png(scene(32, 32), 8, 2)
    yield "rgb_56x20_same_width.png", png(scene(56, 20), 8, 2)
    yield "rgb_37x91_odd.png", png(scene(37, 91), 8, 2)
    yield "rgb_160x120_split_idat.png", png(scene(160, 120, noise=3), 8, 2, filters=(4, 1), idat=997)
    yield "rgb_400x8_wide.png", png(scene(400, 8, noise=3), 8, 2)
    yield "rgb_9x400_tall.png", png(scene(9, 400, noise=3), 8, 2)
    yield "rgb_noise.png", png(rng.integers(0, 2, (70, 70, 3)) * 255, 8, 2, filters=(0,))
    yield "rgb_trns.png", png(scene(40, 30), 8, 2, before=[(b"tRNS", struct.pack(">HHH", 255, 0, 0))])
    yield "rgb_interlaced.png", png(scene(45, 38), 8, 2, interlace=1)
    yield "rgb16.png", png(s16(3), 16, 2)
    yield "rgb16_interlaced.png", png(s16(3, 21, 19), 16, 2, interlace=1)
    yield "rgba.png", png(scene(50, 40, 4), 8, 6)
    yield "rgba_interlaced.png", png(scene(33, 21, 4), 8, 6, interlace=1)
    yield "rgba16.png", png(s16(4, 30, 22), 16, 6)
    yield "grey1.png", png(scene(67, 50)[..., :1] >> 7, 1, 0)
    yield "grey1_interlaced.png", png(scene(35, 29)[..., :1] >> 7, 1, 0, interlace=1)
    yield "grey2.png", png(small(2), 2, 0)
    yield "grey4.png", png(small(4), 4, 0)
    yield "grey8.png", png(index, 8, 0)
    yield "grey8_trns.png", png(index, 8, 0, before=[(b"tRNS", struct.pack(">H", 127))])
    yield "grey16.png", png(s16(1), 16, 0)
    yield "grey16_dark.png", png(s16(1, 40, 40) // 200, 16, 0)
    yield "grey_alpha.png", png(scene(44, 31, 2), 8, 4)
    yield "grey_alpha16.png", png(s16(2, 25, 31), 16, 4)
    yield "palette8.png", png(index, 8, 3, before=[(b"PLTE", pal)])
    yield "palette8_trns_bytes.png", png(index, 8, 3, before=[(b"PLTE", pal), (b"tRNS", bytes(range(200)))])
    yield "palette8_trns_one.png", png(index, 8, 3, before=[(b"PLTE", pal), (b"tRNS", b"\xff\xff\0\xff")])
    yield "palette8_short.png", png(index, 8, 3, before=[(b"PLTE", pal[: 3 * 100])])
    yield "palette4_interlaced.png", png(small(4), 4, 3, interlace=1, before=[(b"PLTE", pal[:48])])
    yield "palette2.png", png(small(2), 2, 3, before=[(b"PLTE", pal[:12])])
    yield "palette1.png", png(small(1), 1, 3, before=[(b"PLTE", pal[:6])])
    yield "exif6.png", png(scene(36, 23), 8, 2, before=[(b"eXIf", tiff(6))])
    yield "exif8_after_idat.png", png(scene(36, 23), 8, 2, after=[(b"eXIf", tiff(8, ">"))])
    yield "xmp5.png", png(scene(36, 23), 8, 2, before=[(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 5)])
    yield "exif_nonsense.png", png(scene(20, 23), 8, 2, before=[(b"eXIf", tiff(9))])

    yield "444.jpg", jpeg(scene(120, 90, noise=4), quality=90, subsampling=0)
    yield "422.jpg", jpeg(scene(90, 75, noise=4), quality=85, subsampling=1)
    yield "420_odd_97x61.jpg", jpeg(scene(97, 61, noise=4), quality=85, subsampling=2)
    yield "420_quality30.jpg", jpeg(scene(200, 150, noise=4), quality=30)
    yield "420_wide_300x9.jpg", jpeg(scene(300, 9, noise=4), quality=85)
    yield "420_restart.jpg", jpeg(scene(80, 64, noise=4), quality=80, restart_marker_blocks=3)
    yield "progressive_420.jpg", jpeg(scene(130, 77, noise=4), quality=80, progressive=True)
    yield "progressive_444.jpg", jpeg(scene(65, 66, noise=4), quality=92, subsampling=0, progressive=True)
    yield "grey.jpg", jpeg(scene(70, 51)[..., 0], quality=88)
    yield "progressive_grey.jpg", jpeg(scene(70, 51)[..., 0], quality=88, progressive=True)
    yield "rgb_adobe.jpg", jpeg(scene(60, 44, noise=4), quality=90, keep_rgb=True)
    yield "cmyk_adobe.jpg", jpeg(scene(48, 40, 4, noise=3), "CMYK", quality=90)
    for o in range(1, 9):
        yield f"exif{o}.jpg", jpeg(scene(41, 26, noise=4), quality=88, exif=b"Exif\0\0" + tiff(o, "<>"[o % 2], 4 if o == 3 else 3))
    yield "xmp8.jpg", jpeg(scene(41, 26, noise=4), quality=88, xmp=XMP % 8)
    yield "exif6_beats_xmp8.jpg", jpeg(scene(41, 26, noise=4), quality=88, exif=b"Exif\0\0" + tiff(6), xmp=XMP % 8)

    # The same scenes, so large that a decoder may reduce them for a resize to 32 (by 4) and to 56 (by 2).
    large = lambda w, h, channels=3: scene(w, h, channels, noise=1, zoom=3)
    yield "large_444.jpg", jpeg(large(300, 260), quality=75, subsampling=0)
    yield "large_422.jpg", jpeg(large(520, 261), quality=75, subsampling=1)
    yield "large_420_progressive.jpg", jpeg(large(301, 259), quality=75, progressive=True)
    yield "large_grey.jpg", jpeg(large(303, 262)[..., 0], quality=75)
    yield "large_cmyk_exif6.jpg", jpeg(large(261, 297, 4), "CMYK", quality=75, exif=b"Exif\0\0" + tiff(6))


def upright(data):
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


def write(directory, name, data):
    with open(os.path.join(directory, name), "wb") as f:
        f.write(data)


CONFIGS = {
    "blip2": {"size": {"height": 32, "width": 32}, "image_processor_type": "BlipImageProcessor", "resample": 3,
              "do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True,
              "rescale_factor": 0.00392156862745098, "image_mean": [0.48145466, 0.4578275, 0.40821073],
              "image_std": [0.26862954, 0.26130258, 0.27577711]},
    "other_statistics": {"size": {"height": 24, "width": 24}, "image_mean": [0.5, 0.25, 0.1], "image_std": [0.2, 0.3, 0.7],
                         "rescale_factor": 0.01},
    "no_normalize": {"size": {"height": 16, "width": 16}, "do_normalize": False},
}


def main():
    os.makedirs(OUT, exist_ok=True)
    os.makedirs(HOSTILE, exist_ok=True)
    lines, resizes, boxes = [], [], []
    for name, data in images():
        write(OUT, name, data)
        im = upright(data)
        rgb = im.convert("RGB")
        row = [name, str(rgb.width), str(rgb.height), fnv(rgb.tobytes())]
        kept = b""
        for s in (32, 56, 224):
            r = np.asarray(rgb.resize((s, s), Image.BICUBIC))
            row.append(fnv(r.tobytes()))
            if s != 224:
                kept += r.tobytes()
            if s == 32:
                # Only a mode that transformers' own conversion handles alike can go through it unconverted.
                p = BlipImageProcessorPil(size={"height": s, "width": s})
                v = np.asarray(p(im if im.mode != "1" else rgb, return_tensors="np")["pixel_values"][0])
                assert v.dtype == np.float32 and v.shape == (3, s, s)
                row.append(fnv(v.tobytes()))
        lines.append(" ".join(row))
        if name.endswith(".jpg"):
            write(OUT, name + ".u8", kept)
        if name in ("rgb_37x91_odd.png", "rgb_noise.png", "rgb_8x8.png"):
            for w, h in [(1, 1), (1, 50), (50, 1), (7, 5), (8, 8), (9, 24), (37, 40), (20, 91), (37, 91), (70, 9), (70, 70),
                         (100, 3), (3, 100), (130, 101), (301, 299)]:
                resizes.append(f"{name} {w} {h} {fnv(rgb.resize((w, h), Image.BICUBIC).tobytes())}")
            for l, t, r, b in [(0, 0, 0.5, 0), (0, 0.125, 0, 0.875), (0.75, 0, 0, 0.25), (0.25, 0.5, 0.75, 0.125)]:
                for w, h in [(1, 1), (8, 8), (20, 91), (37, 40), (37, 91), (70, 9), (100, 99)]:
                    box = (l, t, rgb.width - r, rgb.height - b)
                    out = rgb.resize((w, h), Image.BICUBIC, box=box)
                    boxes.append(f"{name} {l} {t} {r} {b} {w} {h} {fnv(out.tobytes())}")
        if name in ("rgb_160x120_split_idat.png", "rgba.png"):
            for config, options in CONFIGS.items():
                v = np.asarray(BlipImageProcessorPil(**options)(im, return_tensors="np")["pixel_values"][0])
                write(OUT, f"{name}.{config}.f32", v.tobytes())
    for config, options in CONFIGS.items():
        write(OUT, config + ".json", (json.dumps(options, indent=2) + "\n").encode())
    write(OUT, "index.txt", ("\n".join(lines) + "\n").encode())
    write(OUT, "resize.txt", ("\n".join(resizes) + "\n").encode())
    write(OUT, "box.txt", ("\n".join(boxes) + "\n").encode())

    # A 4x4 picture whose data inflates to 20 MB of zeros.
    z = zlib.compress(bytes(20 << 20), 9)
    write(HOSTILE, "bomb.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)) +
          chunk(b"IDAT", z) + chunk(b"IEND", b""))


main()
