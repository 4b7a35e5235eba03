"""Pictures, library and requests of `server.py`: small ones, photos, some that are very large."""

from __future__ import annotations

import io
import json
import os
import random
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

import simsearch as ss

BACKBONE = "efficientnet_lite0"
UNIQUE = 200  # small pictures; the other rows are links to them
LARGE_SIDE = 12_000  # 144 megapixels
LARGE_ROWS = 16  # that lead to large pictures


class Pictures(NamedTuple):
    """What the clients send and ask for."""

    rows: int
    large_rows: list[int]
    uploads: list[bytes]
    photos: list[bytes]  # of 12 megapixels
    camera: bytes  # of 62 megapixels
    lying: bytes  # an AVIF that states 64×64
    profiles: list[bytes]  # JPEGs of different, large ICC profiles


def make(folder: Path, rows: int, seed: int) -> Pictures:
    """Make a dataset with its library in `folder`."""
    rng = np.random.default_rng(seed)
    dataset = folder / "dataset"
    names = [f"set{i % 40}/{i}.jpg" for i in range(rows - LARGE_ROWS)]
    uploads = [encode(noise(rng, 640, 480), "JPEG", quality=85) for _ in range(UNIQUE)]
    for i, name in enumerate(names):
        file = dataset / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if i < UNIQUE:
            file.write_bytes(uploads[i])
        else:
            os.link(dataset / names[i % UNIQUE], file)
    large = large_files(dataset / "large")
    paths = [*(str(dataset / name) for name in names), *map(str, large)]
    backbone = ss.load_backbone(BACKBONE)
    embedded = backbone.encode([str(dataset / name) for name in names[:UNIQUE]])
    vectors = embedded[np.arange(rows) % UNIQUE]
    vectors = vectors + 0.02 * rng.standard_normal(vectors.shape).astype(np.float32)
    library = ss.ImageLibrary(vectors, paths, backbone=backbone)
    library.save(folder / "outputs")
    found = ss.ImageLibrary.load(folder / "outputs")
    return Pictures(
        rows,
        [int(found.find(path)) for path in map(str, large)],
        uploads,
        [encode(noise(rng, 4000, 3000), "JPEG", quality=80) for _ in range(4)],
        encode(noise(rng, 9500, 6500), "JPEG", quality=70),
        lying_avif(),
        with_profiles(rng),
    )


def noise(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    small = rng.integers(0, 256, (height // 40 + 1, width // 40 + 1, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def large_files(folder: Path) -> list[Path]:
    """Make pictures of 144 megapixels of several kinds, each under several names."""
    folder.mkdir(parents=True)
    gradient = Image.linear_gradient("L").resize((LARGE_SIDE, LARGE_SIDE))
    colored = Image.merge("RGB", [gradient] * 3)
    colored.save(folder / "0.png", compress_level=1)
    colored.save(folder / "1.jpg", quality=70)
    colored.save(folder / "2.jpg", quality=60, progressive=True)
    colored.save(folder / "3.tif", compression="tiff_lzw")
    files = sorted(folder.iterdir())
    for i in range(len(files), LARGE_ROWS):
        original = files[i % 4]
        files.append(folder / f"{i}{original.suffix}")
        os.link(original, files[-1])
    return files


def lying_avif() -> bytes:
    """Make an AVIF of 196 megapixels that states 64×64."""
    size = (14_000, 14_000)
    data = encode(Image.new("RGB", size, (90, 120, 30)), "AVIF", speed=10, quality=30)
    return data.replace(struct.pack(">II", *size), struct.pack(">II", 64, 64))


def with_profiles(rng: np.random.Generator) -> list[bytes]:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (64, 64), "teal")
    made = []
    for _ in range(40):
        profile = srgb.replace(b"sRGB", b"mine") + rng.bytes(2**20)
        made.append(encode(image, "JPEG", icc_profile=profile))
    return made


def form(*fields: tuple) -> tuple[bytes, dict[str, str]]:
    """Make a multipart form of (name, value) or (name, file name, bytes)."""
    parts = []
    for name, value, *data in fields:
        shown = f'name="{name}"' + (f'; filename="{value}"' if data else "")
        content = data[0] if data else str(value).encode()
        head = f"--BoUnDaRy\r\nContent-Disposition: form-data; {shown}\r\n\r\n"
        parts.append(head.encode() + content + b"\r\n")
    body = b"".join(parts) + b"--BoUnDaRy--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=BoUnDaRy"}


def any_request(rng: random.Random, pictures: Pictures) -> tuple:
    """Choose a request: kind, method, path, body, headers."""
    row = rng.randrange(pictures.rows)
    number = rng.random()
    if number < 0.35:
        size = rng.choice([128, 256, 512])
        return "thumbnail", "GET", f"/api/images/{row}/thumbnail?size={size}", None, {}
    if number < 0.45:
        return "original", "GET", f"/api/images/{row}", None, {}
    if number < 0.55:
        offset = rng.randrange(pictures.rows)
        return "page", "GET", f"/api/images?offset={offset}&limit=60", None, {}
    if number < 0.6:
        return "library", "GET", "/api/library", None, {}
    if number < 0.605:
        large = rng.choice(pictures.large_rows)
        return "large thumbnail", "GET", f"/api/images/{large}/thumbnail", None, {}
    kind, fields = any_query(rng, pictures, row)
    path = {"recommend": "/api/recommend", "explain": "/api/explain"}.get(kind, "/api/search")
    body, headers = form(*fields)
    return kind, "POST", path, body, headers


def any_query(rng: random.Random, pictures: Pictures, row: int) -> tuple[str, list[tuple]]:
    upload = ("image", "x.jpg", rng.choice(pictures.uploads))
    glob = f"*{rng.randrange(100)}*"
    choices: list[tuple[str, float, list[tuple]]] = [
        ("row", 4, [("row", row)]),
        ("upload", 10, [upload]),
        ("photo", 1, [("image", "x.jpg", rng.choice(pictures.photos))]),
        ("filter", 2, [("row", row), ("where", json.dumps({"path": [glob, "set1/*"]}))]),
        ("box", 1, [upload, ("box", "0.2,0.2,0.9,0.9")]),
        ("regions", 0.5, [upload, ("regions", "true")]),
        ("unique", 1, [("row", row), ("unique", "0.9"), ("k", 5)]),
        ("recommend", 2, [("liked", row), ("disliked", (row * 7) % pictures.rows)]),
        ("explain", 1, [("row", row), ("match", (row * 3) % pictures.rows)]),
        ("camera", 0.1, [("image", "x.jpg", pictures.camera)]),
        ("lying", 0.2, [("image", "x.avif", pictures.lying)]),
        ("profile", 0.5, [("image", "x.jpg", rng.choice(pictures.profiles))]),
    ]
    ((kind, _, fields),) = rng.choices(choices, [weight for _, weight, _ in choices])
    return kind, fields
