"""Frames around the parts of pictures that matched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from simsearch.plotting.grid import Picture
    from simsearch.retrieval.matches import Match

INNER, OUTER = "#ffb000", "#222222"  # a line that is seen on light and on dark
WIDTH_SHARE = 1 / 90  # of the longer side of a picture, for the line


def draw_box(image: Image.Image, match: Match) -> Image.Image:
    """Frame the part of a match in a thumbnail; what was found as a whole stays as it is."""
    if match.box is None or match.size is None or match.box == (0, 0, *match.size):
        return image
    scales = (image.width / match.size[0], image.height / match.size[1]) * 2
    edges = [round(edge * scale) for edge, scale in zip(match.box, scales, strict=True)]
    line = max(2, round(max(image.size) * WIDTH_SHARE))
    framed = image.copy()
    draw = ImageDraw.Draw(framed)
    right, bottom = min(edges[2], image.width) - 1, min(edges[3], image.height) - 1
    frame = (edges[0], edges[1], max(right, edges[0]), max(bottom, edges[1]))
    draw.rectangle(frame, outline=OUTER, width=2 * line)
    inset = (line - 1) // 2 + 1
    inner = (frame[0] + inset, frame[1] + inset, frame[2] - inset, frame[3] - inset)
    if inner[0] < inner[2] and inner[1] < inner[3]:
        draw.rectangle(inner, outline=INNER, width=line)
    return framed


def mark_box(picture: Picture | str, match: Match) -> Picture | str:
    """Frame the part of a match in its picture, if there is one."""
    if isinstance(picture, str):
        return picture
    return picture._replace(pixels=np.asarray(draw_box(Image.fromarray(picture.pixels), match)))
