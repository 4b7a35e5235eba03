"""A dataset that grows and changes, and what a library must hold of it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import simsearch as ss

SIDE, DIM = 8, 16
TOLERANCE = 1e-5  # of a row, between an embedding in one batch and in another


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Turn a picture into its pixels: (3, 8, 8) in [0, 1]."""
    pixels = np.asarray(image.resize((SIDE, SIDE)), np.float32)
    return torch.from_numpy(pixels / 255).permute(2, 0, 1)


def make_backbone() -> ss.Backbone:
    """Make a network small enough that files are what takes the time: 16-d, seeded."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, DIM))
    return ss.load_backbone(module, transform=to_tensor, device="cpu", precision="float32")


class World:
    """A folder of pictures, each of which follows from a number: its content.

    Attributes
    ----------
    pictures : dict
        Content by name, as it is now.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.dataset, self.outputs = folder / "dataset", folder / "outputs"
        self.pictures: dict[str, int] = {}
        self._next = 0
        self.backbone = make_backbone()
        self._rows: dict[int, np.ndarray] = {}
        self.dataset.mkdir(parents=True)

    def embed(self) -> ss.ImageLibrary:
        """Embed the dataset as it is."""
        return ss.embed_dataset(
            self.dataset, self.outputs, self.backbone, progress=False, allow_shrink=True
        )

    def add(self) -> None:
        """Add a picture."""
        name = f"{'ab'[self.random.random() < 0.5]}/{self._next:05}.png"
        self._paint(name)

    def change(self) -> None:
        """Put another picture into the place of one."""
        if self.pictures:
            self._paint(self.random.choice(sorted(self.pictures)))

    def rename(self) -> None:
        """Give a picture another name."""
        if self.pictures:
            old = self.random.choice(sorted(self.pictures))
            new = f"b/moved{self._next:05}.png"
            self._next += 1
            (self.dataset / "b").mkdir(exist_ok=True)
            (self.dataset / old).rename(self.dataset / new)
            self.pictures[new] = self.pictures.pop(old)

    def delete(self) -> None:
        """Delete a picture, unless it is the last one."""
        if len(self.pictures) > 1:
            name = self.random.choice(sorted(self.pictures))
            (self.dataset / name).unlink()
            del self.pictures[name]

    def act(self, count: int) -> None:
        """Do some of these things."""
        acts = [self.add, self.add, self.change, self.rename, self.delete]
        for _ in range(count):
            self.random.choice(acts)()

    def row(self, content: int) -> np.ndarray:
        """Return the embedding of a content: (16,) float32."""
        if content not in self._rows:
            self._rows[content] = self.backbone.encode([paint(content)])[0]
        return self._rows[content]

    def fault_of(self, library: ss.ImageLibrary, pictures: Mapping[str, int]) -> str:
        """Say how a library differs from what it must hold of some pictures; "" if it does not."""
        names = [Path(path).relative_to(self.dataset).as_posix() for path in library.paths]
        if names != sorted(pictures):
            lost, more = set(pictures) - set(names), set(names) - set(pictures)
            return f"lost {sorted(lost)}, not there {sorted(more)}"
        rows = np.asarray(library.row_lookup[:])
        for name, row in zip(names, rows, strict=True):
            if np.abs(row - self.row(pictures[name])).max() > TOLERANCE:
                return f"the row of {name} is of no picture that was there"
        return ""

    def _paint(self, name: str) -> None:
        content = self._next
        self._next += 1
        file = self.dataset / name
        file.parent.mkdir(exist_ok=True)
        paint(content).save(file)
        self.pictures[name] = content


def paint(content: int) -> Image.Image:
    """Paint the picture of a number: noise, 8 × 8."""
    pixels = np.random.default_rng(content).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    return Image.fromarray(pixels)


def summary(counts: Mapping[str, Any]) -> str:
    """Lay counts out as a Markdown list."""
    return "\n".join(f"- {name}: {value}" for name, value in counts.items())
