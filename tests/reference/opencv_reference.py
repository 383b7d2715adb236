#!/usr/bin/env python3
"""What OpenCV and Pillow make of synthetic photographs, as small numbers for tests/reference.rs.

Needs opencv-python-headless, numpy, pillow. Run from anywhere; writes opencv_reference.json beside
itself and the photographs of ../fixtures. Everything is deterministic.
"""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures"
SOURCE = (320, 240)
FILL = (128, 128, 128)
# Output pixels are averaged over this many samples a side where a pose shrinks.
SUPERSAMPLING = 8
GRID = 6


def synthetic(width, height):
    """The same formula stands in tests/reference.rs."""
    x = np.arange(width)[None, :] + 0.5
    y = np.arange(height)[:, None] + 0.5
    planes = []
    for c in range(3):
        k = 1.0 + 0.3 * c
        v = (
            127.5
            + 60.0 * np.sin(0.07 * k * x + 0.05 * y)
            + 40.0 * np.sin(0.31 * x - 0.23 * k * y)
            + 20.0 * np.sin(0.011 * k * x * y / 10.0)
        )
        planes.append(np.clip(np.floor(v + 0.5), 0, 255))
    return np.stack(planes, axis=2).astype(np.uint8)


def affine(*parts):
    """Composes 3 x 3 matrices, first one applied first."""
    m = np.eye(3)
    for part in parts:
        m = part @ m
    return m


def translation(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float)


def scaling(x, y):
    return np.diag([x, y, 1.0])


def rotation(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], float)


def opencv_from_continuous(m):
    """OpenCV counts pixel centres at whole numbers, we at halves."""
    return affine(translation(0.5, 0.5), m, translation(-0.5, -0.5))


def warp_plain(source, m, width, height):
    return cv2.warpAffine(
        source,
        opencv_from_continuous(m)[:2],
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def warp_averaged(source, m, width, height):
    n = SUPERSAMPLING
    fine = affine(m, scaling(n, n))
    image = warp_plain(source, fine, width * n, height * n)
    inverse = np.linalg.inv(fine)
    x = np.arange(width * n)[None, :] + 0.5
    y = np.arange(height * n)[:, None] + 0.5
    u = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
    v = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]
    h, w = source.shape[:2]
    outside = (u < 0) | (u >= w) | (v < 0) | (v >= h)
    image[outside] = FILL
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def poses():
    w, h = SOURCE
    centre = translation(-w / 2, -h / 2)

    def about_centre(width, height, *parts):
        return affine(centre, *parts, translation(width / 2, height / 2))

    yield "enlarged and turned", False, 90, 60, about_centre(90, 60, rotation(30), scaling(1.7, 1.7))
    yield "turned by a right angle", False, 64, 64, about_centre(64, 64, rotation(90))
    yield "mirrored and sheared", False, 80, 60, about_centre(
        80, 60, scaling(-1, 1), np.array([[1, 0.3, 0], [0, 1, 0], [0, 0, 1.0]])
    )
    yield "shrunk 1.5 times", True, 100, 80, about_centre(100, 80, rotation(-20), scaling(1 / 1.5, 1 / 1.5))
    yield "shrunk 2 times upright", True, 160, 120, about_centre(160, 120, scaling(0.5, 0.5))
    yield "shrunk 3 times", True, 60, 48, about_centre(60, 48, rotation(50), scaling(1 / 3, 1 / 3))
    yield "squeezed head crop", True, 60, 60, about_centre(60, 60, rotation(125), scaling(1 / 3, 1 / 1.5))
    yield "shrunk 5.3 times", True, 48, 36, about_centre(48, 36, rotation(10), scaling(1 / 5.3, 1 / 5.3))
    yield "half outside", True, 72, 54, about_centre(72, 54, rotation(35), scaling(0.4, 0.4), translation(20, 10))


def grid(image):
    return image[GRID // 2 :: GRID, GRID // 2 :: GRID].reshape(-1).astype(int).tolist()


def write_fixtures():
    FIXTURES.mkdir(exist_ok=True)
    rgb = Image.fromarray(synthetic(24, 16))
    rgb.convert("CMYK").save(FIXTURES / "cmyk.jpg", quality=80)
    ramp = (np.arange(24 * 16, dtype=np.uint32) * 65535 // (24 * 16 - 1)).astype(np.uint16).reshape(16, 24)
    cv2.imwrite(str(FIXTURES / "grey16.png"), ramp)
    cv2.imwrite(str(FIXTURES / "rgb16.tiff"), np.dstack([ramp, ramp[::-1], 65535 - ramp])[:, :8])
    rgb.quantize(16).save(FIXTURES / "palette.png")
    rgb.save(FIXTURES / "progressive.jpg", quality=60, progressive=True)
    cv2.imwrite(
        str(FIXTURES / "scaled.jpg"),
        cv2.cvtColor(synthetic(64, 48), cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, 60],
    )


def levels(values):
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def conditions():
    """What cameras do to a synthetic photograph, where no chance is in it."""
    picture = synthetic(96, 64)
    v = picture.astype(float)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 20])
    changed = {
        "as is": picture,
        "white balance": levels(v * [0.75, 1, 1.25]),
        "under-exposed": levels(v * 0.35),
        "over-exposed": levels(v * 1.6 + 20),
        "grey": np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None], 3, 2),
        "gamma": levels(255 * (v / 255) ** 1.9),
        "haze": levels(0.5 * v + 0.5 * np.array([200, 208, 216])),
        "blur": cv2.GaussianBlur(picture, (7, 7), 1.5, borderType=cv2.BORDER_REPLICATE),
        "jpeg 20": cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB),
    }
    return {name: grid(image) for name, image in changed.items()}


def noise(read, row, white=400):
    """Of even pictures of some grey levels after a sensor's noise: mean, deviation, and deviation of rows' means."""
    rng = np.random.default_rng(1)
    rows, columns = 4000, 256
    measured = []
    for level in (0, 30, 128, 200, 255):
        light = (level / 255) ** 2.2
        electrons = rng.normal(light * white, np.sqrt(light * white + read**2), (rows, columns))
        electrons += rng.normal(0, 1, (rows, 1)) * row
        image = levels(255 * np.clip(electrons / white, 0, 1) ** (1 / 2.2))
        measured.append([level] + [round(float(v), 2) for v in (image.mean(), image.std(), image.mean(1).std())])
    return measured


def main():
    write_fixtures()
    source = synthetic(*SOURCE)
    warps = []
    for name, averaged, width, height, m in poses():
        image = (warp_averaged if averaged else warp_plain)(source, m, width, height)
        warps.append(
            {
                "name": name,
                "width": width,
                "height": height,
                "output_from_source": [round(float(v), 12) for v in m[:2].reshape(-1)],
                "grid": grid(image),
            }
        )
    decoded = {}
    for name in ("cmyk.jpg", "palette.png", "progressive.jpg"):
        with Image.open(FIXTURES / name) as image:
            decoded[name] = grid(np.asarray(image.convert("RGB")))
    for name in ("grey16.png", "rgb16.tiff"):
        image = cv2.imread(str(FIXTURES / name), cv2.IMREAD_UNCHANGED).astype(float) / 257
        rgb = np.repeat(image[:, :, None], 3, 2) if image.ndim == 2 else image[:, :, ::-1]
        decoded[name] = grid(np.floor(rgb + 0.5))
    reduced = {}
    data = np.frombuffer((FIXTURES / "scaled.jpg").read_bytes(), np.uint8)
    for factor, flag in ((1, cv2.IMREAD_COLOR), (2, cv2.IMREAD_REDUCED_COLOR_2),
                         (4, cv2.IMREAD_REDUCED_COLOR_4), (8, cv2.IMREAD_REDUCED_COLOR_8)):
        image = cv2.cvtColor(cv2.imdecode(data, flag), cv2.COLOR_BGR2RGB)
        reduced[str(factor)] = grid(image)
    result = {
        "opencv": cv2.__version__,
        "grid": GRID,
        "source": SOURCE,
        "warps": warps,
        "decoded": decoded,
        "scaled.jpg": reduced,
        "conditions": conditions(),
        "noise": noise(read=3, row=0),
        "rolling noise": noise(read=3, row=8),
    }
    lines = json.dumps(result, separators=(",", ":")).replace('{"name"', '\n{"name"')
    (HERE / "opencv_reference.json").write_text(lines + "\n")


if __name__ == "__main__":
    main()
