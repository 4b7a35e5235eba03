"""Other packages that find near-duplicates, on the pictures of `duplicates.py`, as files."""

from __future__ import annotations


def compare_peers(pictures, peers, seed): ...
