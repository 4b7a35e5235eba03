"""The sample dataset: real photos that installed packages carry, cut into labelled views.

The photos come with scikit-image, scikit-learn and matplotlib, so nothing is downloaded, and each
is in the public domain, CC0, CC BY or without known restrictions. A thing to try searches on, and
no benchmark: the views of a class share one photo, so they are easier to match than real pictures.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from simsearch.errors import DatasetError, MissingExtraError
from simsearch.images.find import find_images

__all__ = ["make_sample"]


class _Source(NamedTuple):
    label: str
    file: str  # begins with the package that carries it
    credit: str
    region: tuple[int, int, int, int] | None = None  # left, top, right, bottom of the subject


_CC_BY = "CC BY 2.0 (creativecommons.org/licenses/by/2.0)"
_NO_KNOWN = "no known copyright restrictions"
_HOPPER = "matplotlib/mpl-data/sample_data/grace_hopper.jpg"
_FLOWER, _CHINA = "sklearn/datasets/images/flower.jpg", "sklearn/datasets/images/china.jpg"

# Left out: photos whose licence is not stated (moon, motorcycle, page), tiny ones, and drawings.
_SOURCES = (
    _Source("admiral", _HOPPER, "US Navy, public domain"),
    _Source("astronaut", "skimage/data/astronaut.png", "NASA, public domain"),
    _Source("brick", "skimage/data/brick.png", "CC0Textures, CC0"),
    _Source("cat", "skimage/data/chelsea.png", "Stefan van der Walt, CC0"),
    _Source("cell", "skimage/data/cell.png", "Paul Müller and others, CC0", (260, 210, 550, 540)),
    _Source("coffee", "skimage/data/coffee.png", "Rachel Michetti, CC0", (40, 0, 560, 400)),
    _Source("coins", "skimage/data/coins.png", f"Brooklyn Museum, {_NO_KNOWN}"),
    _Source("flower", _FLOWER, f"flickr.com/photos/vultilion, {_CC_BY}", (90, 0, 540, 427)),
    _Source("galaxies", "skimage/data/hubble_deep_field.jpg", "NASA, public domain"),
    _Source("grass", "skimage/data/grass.png", "linolafett on DeviantArt, CC0"),
    _Source("gravel", "skimage/data/gravel.png", "CC0Textures, CC0"),
    _Source("handwriting", "skimage/data/text.png", "Wikipedia's Corner.png, public domain"),
    _Source("photographer", "skimage/data/camera.png", "Lav Varshney, CC0"),
    _Source("retina", "skimage/data/retina.jpg", "Mikael Häggström, CC0"),
    _Source("rocket", "skimage/data/rocket.jpg", "SpaceX, public domain", (120, 40, 520, 427)),
    _Source("temple", _CHINA, f"flickr.com/photos/danielbuechele, {_CC_BY}", (0, 0, 450, 427)),
    _Source("tissue", "skimage/data/ihc.png", f"CMMI, {_NO_KNOWN}"),
)
_PROJECTS = {"matplotlib": "matplotlib", "skimage": "scikit-image", "sklearn": "scikit-learn"}
_SPLITS = {"seg_train": 50, "seg_test": 14, "seg_pred": 7}  # views of each photo
_NOTE = "simsearch-sample.txt"  # the seed and the credits


def make_sample(folder: str | os.PathLike[str] = "dataset", seed: int = 0) -> Path:
    """Write 1,207 labelled views of 17 photos, laid out like the Intel scenes.

    A view is a crop of its photo, perhaps mirrored, turned by a few degrees, and relit. An
    interrupted call can be run again: it writes only the views that are missing. A folder that
    holds the whole sample already is returned as it is.

    Parameters
    ----------
    folder
        Where to write; made if it is not there.
    seed
        Not negative. The same seed and the same Pillow give the same bytes.

    Returns
    -------
    Path
        `folder`, with `seg_train/CLASS/NNNN.jpg` (70 %), `seg_test/CLASS/NNNN.jpg` (20 %), the
        unlabelled `seg_pred/NNNN.jpg` (10 %), and `simsearch-sample.txt`, which credits the photos.

    Raises
    ------
    DatasetError
        If `folder` is a file, or holds images that are not of this sample. It is left as it was.
    MissingExtraError
        If a package that carries some of the photos is not installed. Nothing is written.

    Examples
    --------
    >>> import simsearch as ss
    >>> folder = ss.make_sample("dataset")  # doctest: +SKIP
    """
    folder = Path(folder)
    views, title = _plan(seed), f"simsearch sample 1, seed {seed}"
    # The note alone makes files ours: a user's own photo may well be called seg_pred/0001.jpg.
    ours = views if _first_line(folder / _NOTE) == title else {}
    missing = [name for name in views if name not in ours or not _is_whole(folder / name)]
    if missing:
        _refuse_strangers(folder, ours, seed)
        photos = [_open(source) for source in _SOURCES]
        _write(folder / _NOTE, _credits(title))
        for name in tqdm(missing, desc="Sample dataset", unit="view"):
            photo, number = views[name]
            # A generator for each view, so that it looks the same whichever others are missing.
            view = _cut(photos[photo], np.random.default_rng([seed, photo, number]))
            _write(folder / name, _jpeg(view))
    return folder


def _plan(seed: int) -> dict[str, tuple[int, int]]:
    """Map the name of each file, relative to the folder, to its photo and its view's number."""
    plan: dict[str, tuple[int, int]] = {}
    unlabelled: list[tuple[int, int]] = []
    for photo, source in enumerate(_SOURCES):
        numbers = iter(range(sum(_SPLITS.values())))
        for split in ("seg_train", "seg_test"):
            for n in range(1, _SPLITS[split] + 1):
                plan[f"{split}/{source.label}/{n:04}.jpg"] = photo, next(numbers)
        unlabelled += [(photo, number) for number in numbers]
    # Shuffled, so that the names of the unlabelled views give no class away.
    for n, i in enumerate(np.random.default_rng(seed).permutation(len(unlabelled)), start=1):
        plan[f"seg_pred/{n:04}.jpg"] = unlabelled[i]
    return plan


def _first_line(path: Path) -> str:
    if not path.is_file():
        return ""
    return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]


def _is_whole(path: Path) -> bool:
    """Tell whether a JPEG is there down to its end mark."""
    try:
        with path.open("rb") as file:
            file.seek(-2, os.SEEK_END)
            return file.read() == b"\xff\xd9"
    except OSError:  # not there, or too short to seek in
        return False


def _refuse_strangers(folder: Path, ours: dict[str, tuple[int, int]], seed: int) -> None:
    """Raise if `folder` holds an image that is not ours."""
    files = find_images(folder)[0] if folder.exists() else []
    stranger = next((file.name for file in files if file.name not in ours), None)
    if stranger:
        raise DatasetError(
            f"{os.fspath(folder)!r} holds images that are not of the sample with seed {seed}, "
            f"such as {stranger!r}; give make_sample a new or empty folder"
        )


def _open(source: _Source) -> Image.Image:
    """Open the part of a photo that shows its subject: RGB, or L where the photo is grey."""
    with Image.open(_locate(source.file)) as image:
        photo = image.crop(source.region)
    photo.thumbnail((512, 512), Image.Resampling.LANCZOS)  # about twice the size of a view
    return photo


def _locate(file: str) -> Path:
    """Find a file of an installed package without importing the package."""
    package, _, inside = file.partition("/")
    spec = find_spec(package)
    for root in (spec and spec.submodule_search_locations) or ():
        path = Path(root, inside)
        if path.is_file():
            return path
    raise MissingExtraError(
        f"the sample dataset needs {file}; run pip install --upgrade {_PROJECTS[package]}"
    )


def _cut(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut one view: crop, mirror, turn, and relight."""
    angle, mirror = np.radians(rng.uniform(-8, 8)), rng.choice((-1, 1))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[mirror * cos, sin], [-mirror * sin, cos]])  # from the view to the photo

    # The upright box around the turned crop stays inside the photo: no black corners.
    shape = np.array([np.exp(rng.uniform(-0.3, 0.3)), 1])  # width and height, 3:4 to 4:3
    largest = (photo.size / (abs(turn) @ shape)).min()
    crop = shape * largest * rng.uniform(0.55, 0.9)
    margin = abs(turn) @ crop / 2
    centre = rng.uniform(margin, photo.size - margin)

    matrix = np.column_stack([turn, centre - turn @ crop / 2]).ravel().tolist()
    width, height = crop.round().astype(int).tolist()
    # First at the photo's own scale, then down with a filter that does not alias.
    view = photo.transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    width, height = (shape / shape.min() * rng.uniform(224, 256)).round().astype(int).tolist()
    return _relight(view.resize((width, height), Image.Resampling.LANCZOS), rng)


def _relight(view: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change brightness, contrast and, by a gamma for each band, colour."""
    tint = rng.uniform(-0.08, 0.08, (len(view.getbands()), 1))
    tones = np.linspace(0, 1, 256) ** np.exp(tint + rng.uniform(-0.25, 0.25))  # (bands, 256)
    tones = 0.5 + (tones - 0.5) * rng.uniform(0.85, 1.15) + rng.uniform(-0.05, 0.05)
    return view.point((tones.clip(0, 1) * 255).round().astype(int).ravel().tolist())


def _jpeg(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _credits(title: str) -> bytes:
    changes = "Views of the photos below: cropped, mirrored, turned and relit by simsearch."
    photos = (f"{source.label}: {source.credit}, from {source.file}" for source in _SOURCES)
    return "\n".join([title, changes, "", *photos, ""]).encode()


def _write(path: Path, data: bytes) -> None:
    """Write beside the place, then rename: a file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)
