"""What decodes in place of this process: a server has others, which a bad file cannot harm.

`simsearch.images.decode.DECODER` names it, for the thread that sets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from PIL import Image

    from simsearch.images.compare import Verdict
    from simsearch.images.header import Header
    from simsearch.images.read_signature import Signed


class Decoder(Protocol):
    """Decodes files and bytes elsewhere."""

    def load(self, source: str | os.PathLike[str] | bytes, min_side: int | None) -> Image.Image:
        """Decode as `load_image` does."""

    def parts(
        self, source: str | os.PathLike[str] | bytes, boxes: Sequence[Sequence[float]]
    ) -> list[Image.Image]:
        """Decode and crop as `load_parts` does."""

    def compare(self, a: str, b: str) -> Verdict | None:
        """Compare as `compare_files` does."""

    def equal(self, a: str, b: str) -> bool:
        """Compare as `equal_pixels` does."""

    def signature(self, path: str) -> Signed | None:
        """Read a signature as `read_signature` does."""

    def measure(self, source: str | os.PathLike[str] | bytes) -> tuple[Header, int]:
        """Read format, size and coded pixels as `measure` does."""
