#!/usr/bin/env python3
"""What OpenCV makes of uncompressed frames, as small numbers for tests/reference.rs.

Needs opencv-python-headless and numpy. Run from anywhere; writes raw_images.json beside itself. Everything is
deterministic: the frames are noise from a generator that tests/reference.rs has too.
"""

import json
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 12, 10


def noise(count, bits):
    """Numerical Recipes' generator from 1; the upper bits of each state."""
    values, state = [], 1
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append(state >> (32 - bits))
    return np.array(values)


def to_levels(values, bits):
    return np.floor(values * 255.0 / (2**bits - 1) + 0.5).astype(np.uint8)


def by_definition(y, cb, cr, red, blue, full):
    """ITU-R BT.601 and BT.709, in floating point."""
    y, cb, cr = y.astype(float), cb.astype(float) - 128, cr.astype(float) - 128
    if full:
        y, cb, cr = y / 255, cb / 255, cr / 255
    else:
        y, cb, cr = (y - 16) / 219, cb / 224, cr / 224
    r = y + 2 * (1 - red) * cr
    b = y + 2 * (1 - blue) * cb
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.floor(np.stack([r, g, b], axis=2) * 255 + 0.5), 0, 255).astype(np.uint8)


def yuyv_planes(raw):
    pairs = raw.reshape(HEIGHT, WIDTH // 2, 4)
    y = pairs[:, :, [0, 2]].reshape(HEIGHT, WIDTH)
    return y, np.repeat(pairs[:, :, 1], 2, axis=1), np.repeat(pairs[:, :, 3], 2, axis=1)


def formats():
    pixels = WIDTH * HEIGHT
    # OpenCV takes what is darker than black as black before it adds the colour, the definition after that.
    yuyv = np.maximum(noise(2 * pixels, 8), 16).astype(np.uint8)
    yield "YUYV", "", cv2.cvtColor(yuyv.reshape(HEIGHT, WIDTH, 2), cv2.COLOR_YUV2RGB_YUYV)
    yield "UYVY", "", cv2.cvtColor(yuyv.reshape(HEIGHT, WIDTH, 2), cv2.COLOR_YUV2RGB_UYVY)
    planes = yuyv_planes(yuyv)
    yield "YUYV", "601", by_definition(*planes, 0.299, 0.114, False)
    yield "YUYV", "601 full", by_definition(*planes, 0.299, 0.114, True)
    yield "YUYV", "709", by_definition(*planes, 0.2126, 0.0722, False)
    yield "YUYV", "709 full", by_definition(*planes, 0.2126, 0.0722, True)
    yield "YUYV", "2020", by_definition(*planes, 0.2627, 0.0593, False)
    nv12 = np.maximum(noise(pixels * 3 // 2, 8), 16).astype(np.uint8)
    yield "NV12", "", cv2.cvtColor(nv12.reshape(HEIGHT * 3 // 2, WIDTH), cv2.COLOR_YUV2RGB_NV12)
    rgb = noise(3 * pixels, 8).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)
    yield "RGB3", "", rgb
    yield "BGR3", "", cv2.cvtColor(rgb, cv2.COLOR_BGR2RGB)
    for name, bits in [("GREY", 8), ("Y10", 10), ("Y12", 12)]:
        levels = to_levels(noise(pixels, bits).reshape(HEIGHT, WIDTH), bits)
        yield name, "", np.repeat(levels[:, :, None], 3, axis=2)
    # OpenCV's older names are those of the second row's second and third pixel.
    for names, code in [
        (("RGGB", "RG10", "RG12"), cv2.COLOR_BayerRGGB2RGB),
        (("GRBG", "BA10", "BA12"), cv2.COLOR_BayerGRBG2RGB),
        (("GBRG", "GB10", "GB12"), cv2.COLOR_BayerGBRG2RGB),
        (("BA81", "BG10", "BG12"), cv2.COLOR_BayerBGGR2RGB),
    ]:
        for name, bits in zip(names, (8, 10, 12)):
            raw = noise(pixels, bits).reshape(HEIGHT, WIDTH)
            raw = raw.astype(np.uint8 if bits == 8 else np.uint16)
            yield name, "", to_levels(cv2.cvtColor(raw, code).astype(float), bits)


def main():
    found = []
    for name, colour, image in formats():
        # At the edge OpenCV repeats its neighbours.
        inner = image[1:-1, 1:-1].reshape(-1).astype(int).tolist()
        found.append(json.dumps({"format": name, "colour": colour, "inner": inner}, separators=(",", ":")))
    text = '{"opencv":"%s","size":[%d,%d],"images":[\n' % (cv2.__version__, WIDTH, HEIGHT)
    (HERE / "raw_images.json").write_text(text + ",\n".join(found) + "\n]}\n")


main()
