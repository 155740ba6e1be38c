#!/usr/bin/env python3
"""Writes the image files the cases use into files/. Needs python3-pil (Debian). Run from this directory."""
import io
import os
import random
import struct
import zlib

from PIL import Image

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "files")


def save(name, data):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)


def encode(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width, height):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


r = random.Random(1)
picture = Image.effect_noise((40, 30), 60).convert("RGB")
picture = Image.frombytes("RGB", (40, 30), bytes(r.randrange(256) for _ in range(40 * 30 * 3)))
png, jpeg = encode(picture, "PNG"), encode(picture, "JPEG", quality=80)
save("good.png", png)
save("good.jpg", jpeg)
save("truncated.png", png[:len(png) // 2])
save("truncated.jpg", jpeg[:60])
broken = bytearray(png)
broken[len(png) // 2] ^= 0xff
save("corrupt.png", bytes(broken))
# 60000 x 60000 pixels would be 10.8 GB; nothing of it may be allocated.
save("bomb_side.png", png_header(60000, 60000) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))
# Within the longest side, beyond the number of pixels: 8000 x 8000, one byte value, a few hundred bytes of file.
save("bomb_pixels.png", png_header(8000, 8000) + chunk(b"IDAT", zlib.compress(b"\0" * 100000)) + chunk(b"IEND", b""))
save("zero.png", png_header(0, 10) + chunk(b"IEND", b""))
save("image.gif", encode(picture.quantize(16), "GIF"))
save("image.bmp", encode(picture, "BMP")[:200])
save("image.webp", encode(picture, "WEBP"))
save("image.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><rect width="10" height="10"/></svg>\n')
save("document.pdf", b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF\n")
save("page.html", b"<!DOCTYPE html><html><body>not an image</body></html>\n")
save("png_signature_only.png", b"\x89PNG\r\n\x1a\n")
