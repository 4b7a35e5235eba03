"""The sample dataset: real photos that installed packages carry, cut into labelled views.

The photos come with scikit-image, scikit-learn and matplotlib: nothing is downloaded, and each is
in the public domain, CC0, CC BY or without known restrictions. A dataset to try searching and
training on, with look-alike classes; no benchmark, since the views of a class share photos.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from tqdm.auto import tqdm

from simsearch.errors import DatasetError, MissingExtraError
from simsearch.images.listing import find_images

__all__ = ["make_sample"]

Box = tuple[int, int, int, int]  # left, top, right, bottom: pixels of the photo as it is carried
Region = tuple[str, Box]  # a photo, and where in it the views' centres lie
Photos = dict[str, Image.Image]
Floats = NDArray[np.float64]


class _Subject(NamedTuple):
    label: str
    regions: tuple[Region, ...]  # the views take them in turn


class _Look(NamedTuple):
    """How views are taken: ranges of uniform draws, and chances in [0, 1]."""

    zoom: tuple[float, float]  # width of the crop, 1 for the largest one inside the region
    drift: float  # share of the crop that may hang over the region's edge
    turn: float  # degrees, to either side
    light: float  # of the exponent of the tone curve, to either side
    cast: float  # the same for each band of its own
    blur: float  # pixels of the view, at most
    noise: float  # standard deviation in grey levels, at most
    hidden: float  # chance that something stands before the lens
    grey: float  # chance that a colour photo comes out black and white


class _View(NamedTuple):
    subject: _Subject
    look: str  # a key of _LOOKS
    number: int  # from 1, of this subject and look
    copy: str = ""  # or one of _COPIES

    @property
    def name(self) -> str:
        """File of a labelled view, relative to the folder."""
        return f"{self.look}/{self.subject.label}/{self.number:04}.jpg"


_CC_BY = "CC BY 2.0 (creativecommons.org/licenses/by/2.0)"
_NO_KNOWN = "no known copyright restrictions"
_CHINA, _FLOWER = "sklearn/datasets/images/china.jpg", "sklearn/datasets/images/flower.jpg"
_HOPPER = "matplotlib/mpl-data/sample_data/grace_hopper.jpg"

# Left out: photos whose licence is not stated (moon, motorcycle, page), tiny ones, and drawings.
_PHOTOS = {  # file, which begins with the package that carries it, and credit
    "astronaut": ("skimage/data/astronaut.png", "NASA, public domain"),
    "brick": ("skimage/data/brick.png", "CC0Textures, CC0"),
    "camera": ("skimage/data/camera.png", "Lav Varshney, CC0"),
    "cat": ("skimage/data/chelsea.png", "Stefan van der Walt, CC0"),
    "cell": ("skimage/data/cell.png", "Paul Müller and others, CC0"),
    "china": (_CHINA, f"flickr.com/photos/danielbuechele, {_CC_BY}"),
    "clock": ("skimage/data/clock_motion.png", "Stefan van der Walt, public domain"),
    "coffee": ("skimage/data/coffee.png", "Rachel Michetti, CC0"),
    "coins": ("skimage/data/coins.png", f"Brooklyn Museum, {_NO_KNOWN}"),
    "flower": (_FLOWER, f"flickr.com/photos/vultilion, {_CC_BY}"),
    "galaxies": ("skimage/data/hubble_deep_field.jpg", "NASA, public domain"),
    "grass": ("skimage/data/grass.png", "linolafett on DeviantArt, CC0"),
    "gravel": ("skimage/data/gravel.png", "CC0Textures, CC0"),
    "handwriting": ("skimage/data/text.png", "Wikipedia's Corner.png, public domain"),
    "hopper": (_HOPPER, "US Navy, public domain"),
    "retina": ("skimage/data/retina.jpg", "Mikael Häggström, CC0"),
    "rocket": ("skimage/data/rocket.jpg", "SpaceX, public domain"),
    "tissue": ("skimage/data/ihc.png", f"CMMI, {_NO_KNOWN}"),
}
# Of a photo of 512 pixels a side: its views overlap less, and pass for no copies.
_QUARTERS = [(x, y, x + 256, y + 256) for x in (0, 256) for y in (0, 256)]
# Look-alikes on purpose: parts of one photo, portraits, grey grounds. Flags, grass and rockets are
# each seen in two photos.
_SUBJECTS = (
    _Subject("admiral", (("hopper", (150, 20, 390, 400)),)),
    _Subject("astronaut", (("astronaut", (140, 0, 330, 240)),)),
    _Subject("brick", tuple(("brick", box) for box in _QUARTERS)),
    _Subject("cat", (("cat", (20, 0, 430, 300)),)),
    _Subject("coffee", (("coffee", (120, 10, 470, 390)),)),
    _Subject("coins_lower", (("coins", (15, 155, 375, 300)),)),
    _Subject("coins_upper", (("coins", (15, 5, 375, 150)),)),
    _Subject("flag", (("hopper", (0, 0, 180, 340)), ("astronaut", (0, 0, 110, 290)))),
    _Subject("flower", (("flower", (150, 70, 460, 427)),)),
    _Subject("galaxies", (("galaxies", (0, 0, 500, 430)), ("galaxies", (500, 430, 1000, 872)))),
    _Subject("grass", (("grass", (0, 0, 280, 280)), ("camera", (330, 330, 512, 512)))),
    _Subject("gravel", tuple(("gravel", box) for box in _QUARTERS)),
    _Subject("photographer", (("camera", (110, 50, 340, 260)),)),
    _Subject("retina_disc", (("retina", (60, 430, 560, 930)),)),
    _Subject("retina_macula", (("retina", (480, 430, 1000, 930)),)),
    _Subject("rocket", (("rocket", (220, 60, 430, 427)), ("astronaut", (345, 0, 480, 260)))),
    _Subject("spacesuit", (("astronaut", (40, 220, 380, 512)),)),
    _Subject("temple", (("china", (80, 20, 390, 380)),)),
    _Subject("tissue_glands", (("tissue", (0, 0, 230, 220)), ("tissue", (250, 310, 390, 512)))),
    _Subject("tissue_stroma", (("tissue", (130, 220, 260, 512)), ("tissue", (370, 310, 512, 512)))),
    _Subject("trees", (("china", (350, 285, 640, 427)),)),
    _Subject("uniform", (("hopper", (60, 400, 330, 560)), ("hopper", (300, 440, 480, 570)))),
)
# Of no class: their views are in seg_pred alone.
_DISTRACTORS = (
    _Subject("a cell", (("cell", (300, 260, 540, 530)),)),
    _Subject("a clock", (("clock", (60, 30, 340, 270)),)),
    _Subject("handwriting", (("handwriting", (0, 0, 448, 172)),)),
    _Subject("a wooden table", (("coffee", (0, 180, 170, 400)), ("coffee", (450, 180, 600, 400)))),
    _Subject("a launch tower", (("rocket", (0, 60, 140, 427)), ("rocket", (540, 60, 640, 427)))),
    _Subject("a lake", (("china", (380, 150, 640, 275)),)),
)
_PROJECTS = {"matplotlib": "matplotlib", "skimage": "scikit-image", "sklearn": "scikit-learn"}
_SPLITS = {"seg_train": 40, "seg_test": 10, "seg_pred": 3}  # views of each subject
_LOOKS = {
    "first": _Look((0.9, 1.0), 0, 2, 0, 0, 0, 0, 0, 0),
    "seg_train": _Look((0.5, 1.0), 0.2, 8, 0.25, 0.12, 1.0, 6, 0.2, 0.1),
    "seg_test": _Look((0.36, 0.9), 0.28, 12, 0.35, 0.2, 2.2, 10, 0.45, 0.15),
}
_LOOKS["seg_pred"] = _LOOKS["seg_test"]
_FIRST = "cat"  # seg_pred/0001.jpg, the first row of the library, shows it plainly
_COPIES = ("exact", "mirrored", "smaller")  # of views of seg_train, kept in seg_pred
_COPIES_EACH = 8
_MIN_CROP = 96  # pixels of the photo: a smaller crop shows little but its own blur
_SKINS = ((196, 142, 118), (150, 100, 78), (92, 60, 46))  # RGB, of a finger before the lens
_NOTE = "simsearch-sample.txt"  # the seed, the credits, the copies and the distractors


def make_sample(folder: str | os.PathLike[str] = "dataset", seed: int = 0) -> Path:
    """Write 1,209 views of 18 photos, laid out like the Intel scenes: 22 classes.

    A view is a crop of its photo, perhaps mirrored, turned, relit, blurred, or partly hidden by a
    finger, a post or a shadow; those of seg_test are the hardest. Some classes look alike: parts
    of one photo, such as two rows of coins, or grey grounds, such as grass and gravel. Among the
    unlabelled pictures are copies of views of seg_train, and views of no class; the note lists
    both. With EfficientNet-Lite0, mAP over three seeds is 0.76 for a plain search, 0.84 after
    `refine`, 0.95 with a trained head, and 0.05 by chance (`benchmarks/sample.py`).

    An interrupted call can be run again: it writes only the views that are missing. A folder that
    holds the whole sample already is returned as it is.

    Parameters
    ----------
    folder
        Where to write; made if it is not there.
    seed
        Not negative. The same seed gives the same bytes, with the same Pillow and NumPy.

    Returns
    -------
    Path
        `folder`, with `seg_train/CLASS/NNNN.jpg` (40 views a class), `seg_test/CLASS/NNNN.jpg`
        (10), the unlabelled `seg_pred/NNNN.jpg` (109), and `simsearch-sample.txt`, which credits
        the photos and lists, one per line, the copies ("seg_pred/0042.jpg: mirrored copy of
        seg_train/cat/0031.jpg") and the pictures of no class ("seg_pred/0007.jpg: a clock").

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
    views, title = _plan(seed), f"simsearch sample 2, seed {seed}"
    # The note alone makes files ours: a user's own photo may well be called seg_pred/0001.jpg.
    ours = views if _first_line(folder / _NOTE) == title else {}
    missing = [name for name in views if name not in ours or not _is_whole(folder / name)]
    if missing:
        _refuse_strangers(folder, ours, seed)
        photos = {name: _open(file) for name, (file, _) in _PHOTOS.items()}
        _write(folder / _NOTE, _note(title, views))
        for name in tqdm(missing, desc="Sample dataset", unit="view"):
            _write(folder / name, _file(views[name], photos, seed))
    return folder


def _plan(seed: int) -> dict[str, _View]:
    """Map the name of each file, relative to the folder, to its view."""
    rng = np.random.default_rng(seed)
    labelled = [*_views(_SUBJECTS, "seg_train"), *_views(_SUBJECTS, "seg_test")]
    others = [*_views((*_SUBJECTS, *_DISTRACTORS), "seg_pred"), *_copies(rng)]
    # Shuffled, so that the names of the unlabelled views give no class away.
    shuffled = [others[i] for i in rng.permutation(len(others))]
    first = next(_View(x, "first", 1) for x in _SUBJECTS if x.label == _FIRST)
    unlabelled = {f"seg_pred/{n:04}.jpg": view for n, view in enumerate([first, *shuffled], 1)}
    return {view.name: view for view in labelled} | unlabelled


def _views(subjects: Iterable[_Subject], split: str) -> list[_View]:
    return [_View(x, split, i + 1) for x in subjects for i in range(_SPLITS[split])]


def _copies(rng: np.random.Generator) -> list[_View]:
    """Choose views of seg_train, of its second half: those of one kind are of different classes."""
    last = _SPLITS["seg_train"]
    return [
        _View(_SUBJECTS[i], "seg_train", int(rng.integers(last // 2, last)) + 1, copy)
        for copy in _COPIES
        for i in rng.permutation(len(_SUBJECTS))[:_COPIES_EACH]
    ]


def _first_line(path: Path) -> str:
    return path.read_text("utf-8", "replace").partition("\n")[0] if path.is_file() else ""


def _is_whole(path: Path) -> bool:
    """Tell whether a JPEG is there down to its end mark."""
    try:
        with path.open("rb") as file:
            file.seek(-2, os.SEEK_END)
            return file.read() == b"\xff\xd9"
    except OSError:  # not there, or too short to seek in
        return False


def _refuse_strangers(folder: Path, ours: dict[str, _View], seed: int) -> None:
    """Raise if `folder` holds an image that is not ours."""
    files = find_images(folder)[0] if folder.exists() else []
    links = (each.name for each in folder.rglob("*") if each.is_symlink())  # never ours
    names = [*(file.name for file in files), *links]
    if stranger := next((name for name in names if name not in ours), None):
        raise DatasetError(
            f"{os.fspath(folder)!r} holds images that are not of this version's sample with seed "
            f"{seed}, such as {stranger!r}; give make_sample a new or empty folder"
        )


def _write(path: Path, data: bytes) -> None:
    """Write beside the place, then rename: a file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _note(title: str, views: dict[str, _View]) -> bytes:
    """Credit the photos, and list the copies and the pictures of no class."""
    changes = "Views of the photos below: cropped, mirrored, turned, relit, blurred, partly hidden."
    each, photos = views.items(), (f"{x}: {y}, from {file}" for x, (file, y) in _PHOTOS.items())
    copies = (f"{name}: {view.copy} copy of {view.name}" for name, view in each if view.copy)
    others = (f"{name}: {x.subject.label}" for name, x in each if x.subject in _DISTRACTORS)
    lists = (("", changes, "", *photos), ("", "Copies", *copies), ("", "Of no class", *others))
    return "\n".join([title, *chain.from_iterable(lists), ""]).encode()


# Photos and views


def _open(file: str) -> Image.Image:
    """Open a photo: RGB, or L where it is grey."""
    with Image.open(_locate(file)) as image:
        return image.convert("L" if image.mode == "L" else "RGB")


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


def _file(view: _View, photos: Photos, seed: int) -> bytes:
    """Take a view, or copy it: a JPEG."""
    image, buffer = _take(view, photos, seed), BytesIO()
    if view.copy == "mirrored":
        image = ImageOps.mirror(image)
    elif view.copy == "smaller":
        image = ImageOps.scale(image, 0.75, Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=75 if view.copy == "smaller" else 90)
    return buffer.getvalue()


def _take(view: _View, photos: Photos, seed: int) -> Image.Image:
    """Cut a view out, perhaps put something before it, relight and blur it."""
    # A generator for each view, so that it looks the same whichever others are missing.
    rng, look = np.random.default_rng([seed, *view.name.encode()]), _LOOKS[view.look]
    photo, box = view.subject.regions[view.number % len(view.subject.regions)]
    image = _cut(photos[photo], box, look, rng)
    if rng.random() < look.grey:
        image = image.convert("L")
    if rng.random() < look.hidden:
        image = _HIDERS[rng.integers(len(_HIDERS))](image, rng)
    return _soften(_relight(image, look, rng), look, rng)


def _cut(photo: Image.Image, box: Box, look: _Look, rng: np.random.Generator) -> Image.Image:
    """Cut out a crop that is centred in the box, mirrored or not, and turned."""
    angle, mirror = np.radians(rng.uniform(-look.turn, look.turn)), rng.choice((-1, 1))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[mirror * cos, sin], [-mirror * sin, cos]])  # from the view to the photo
    shape = np.array([np.exp(rng.uniform(-0.3, 0.3)), 1])  # width and height, 3:4 to 4:3

    # The upright box around the turned crop stays inside the photo: no black corners.
    start, end = np.array(box[:2]), np.array(box[2:])
    extent = abs(turn) @ shape
    side = ((end - start) / extent).min() * rng.uniform(*look.zoom)
    crop = shape * min(max(side, _MIN_CROP / shape.min()), (photo.size / extent).min())
    margin = abs(turn) @ crop / 2
    inside = margin * (1 - look.drift)
    centre = rng.uniform(*np.sort([start + inside, end - inside], axis=0))
    centre = centre.clip(margin, photo.size - margin)

    matrix = np.column_stack([turn, centre - turn @ crop / 2]).ravel().tolist()
    width, height = crop.round().astype(int).tolist()
    # First at the photo's own scale, then to size with a filter that does not alias.
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    view = photo.transform((width, height), affine, matrix, bilinear)
    width, height = (shape / shape.min() * rng.uniform(224, 256)).round().astype(int).tolist()
    return view.resize((width, height), Image.Resampling.LANCZOS)


def _finger(view: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Put a finger before a corner of the lens."""
    corner = np.array(view.size) * rng.integers(0, 2, 2)
    radii, skin = rng.uniform(80, 140) * np.array([1, 1.3]), rng.choice(_SKINS)
    for share, light in ((1, 0.8), (0.75, 1.0), (0.4, 1.15)):  # lighter towards the corner
        ends = np.array([corner - radii * share, corner + radii * share])
        view = _paint(view, "ellipse", ends, skin * light, 14)
    return view


def _post(view: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Put a blurred post across, from top to bottom."""
    line = np.array([rng.uniform(0.15, 0.85, 2) * view.width, [0, view.height]]).T
    half, metal = rng.uniform(14, 32) * np.array([1, 0]), rng.uniform(40, 80) * np.ones(3)
    for share, light in ((1, 0.6), (0.6, 1.0), (0.25, 1.4)):  # lighter towards its middle
        polygon = np.vstack([line - half * share, line[::-1] + half * share])
        view = _paint(view, "polygon", polygon, metal * light, 6)
    return view


def _shadow(view: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Darken the left or the right."""
    line = np.array([rng.uniform(0.2, 0.8, 2) * view.width, [0, view.height]]).T
    edge = np.array([np.full(2, view.width * rng.integers(0, 2)), line[:, 1]]).T
    dark = _paint(view, "polygon", np.vstack([line, edge[::-1]]), np.zeros(3), 5)
    return Image.blend(view, dark, 0.6)


_HIDERS = (_finger, _post, _shadow)


def _paint(
    view: Image.Image, shape: str, points: Floats, colour: Floats, softness: float
) -> Image.Image:
    """Paint a shape through (P, 2) points with a soft edge, made at a quarter of the size."""
    mask = Image.new("L", (view.width // 4, view.height // 4))
    getattr(ImageDraw.Draw(mask), shape)((points / 4).ravel().tolist(), fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(softness / 4)).resize(view.size)
    red, green, blue = colour.clip(0, 255).astype(int).tolist()
    paint = Image.new("RGB", view.size, (red, green, blue))
    return Image.composite(paint.convert(view.mode), view, mask)


def _relight(view: Image.Image, look: _Look, rng: np.random.Generator) -> Image.Image:
    """Change brightness, contrast and, by a tone curve for each band, colour."""
    tint = rng.uniform(-look.cast, look.cast, (len(view.getbands()), 1))
    tones = np.linspace(0, 1, 256) ** np.exp(tint + rng.uniform(-look.light, look.light))
    contrast, shift = 1 + look.light * rng.uniform(-0.5, 0.5), look.light * rng.uniform(-0.2, 0.2)
    tones = 0.5 + (tones - 0.5) * contrast + shift  # (bands, 256)
    return view.point((tones.clip(0, 1) * 255).round().astype(int).ravel().tolist())


def _soften(view: Image.Image, look: _Look, rng: np.random.Generator) -> Image.Image:
    """Blur by a bad focus or by a hand that moved sideways, and add the grain of weak light."""
    radius = rng.uniform(0, look.blur)
    moved = rng.random() < 0.5
    blur = ImageFilter.BoxBlur((2 * radius, 0)) if moved else ImageFilter.GaussianBlur(radius)
    pixels = np.asarray(view.filter(blur), np.float32)
    deviation, shape = np.float32(rng.uniform(0, look.noise)), (*pixels.shape[:2], 1)
    grain = rng.standard_normal(shape[: pixels.ndim], np.float32)  # the same in each band
    return Image.fromarray((pixels + grain * deviation).round().clip(0, 255).astype(np.uint8))
