"""Samples of JSON bodies and of answers, for the OpenAPI schema."""

from __future__ import annotations

from typing import Any

VERSION = "3f9c2ab41d07"

IMAGE: dict[str, Any] = {
    "row": 42,
    "path": "sea/0042.jpg",
    "caption": "Harbour at noon · 49.00",
    "metadata": {"title": "Harbour at noon", "price": 49.0},
    "image": f"/api/images/42?v={VERSION}",
    "thumbnail": f"/api/images/42/thumbnail?v={VERSION}",
    "width": None,
    "height": None,
}
MATCH: dict[str, Any] = IMAGE | {
    "rank": 1,
    "score": 0.874,
    "percentile": 99.6,
    "duplicates": [],
    "box": None,
    "size": None,
    "label": "",
}
FOUND: dict[str, Any] = {
    "version": VERSION,
    "milliseconds": 6.2,
    "answers": [
        {"query": "sea/0007.jpg", "box": None, "exact": True, "notes": [], "matches": [MATCH]}
    ],
}
COPIES: dict[str, Any] = {
    "version": VERSION,
    "state": "running",
    "step": "pictures read",
    "done": 1200,
    "total": 25_000,
    "error": "",
    "groups": 0,
    "copies": 0,
    "bytes": 0,
    "notes": [],
    "listed": [],
}
REQUESTS: dict[str, dict[str, Any]] = {
    "SearchForm": {"row": 42, "k": 5, "where": {"folder": "sea", "price": {"max": 50}}},
    "RecommendForm": {"liked": [42, 43], "disliked": [7], "k": 5},
    "ExplainForm": {"row": 42, "match": 43},
    "SuggestForm": {"row": 42},
}
ANSWERS: dict[str, dict[str, Any]] = {
    "/api/library": {
        "version": VERSION,
        "name": "",
        "libraries": [],
        "images": 25_000,
        "dim": 2048,
        "backbone": "resnet50",
        "head": None,
        "index": None,
        "folders": [{"name": "sea", "images": 4096}],
        "columns": [
            {"name": "title", "kind": "text"},
            {"name": "price", "kind": "number", "min": 3.5, "max": 990.0},
            {"name": "colour", "kind": "text", "values": ["blue", "red"], "counts": [310, 122]},
        ],
        "urls": False,
        "embeds": True,
        "explains": True,
        "words": True,
        "parts": False,
        "limits": {"bytes": 33_554_432, "pixels": 64_000_000},
        "matches": 200,
        "auto_threshold": 0.41,
        "skipped": 3,
    },
    "/api/images": {"version": VERSION, "total": 4096, "images": [IMAGE]},
    "/api/images/{row}/facts": IMAGE,
    "/api/search": FOUND,
    "/api/recommend": FOUND,
    "/api/suggest": {"version": VERSION, "parts": [[0.18, 0.07, 0.73, 0.64], [0.6, 0.5, 1, 0.9]]},
    "/api/map": {
        "version": VERSION,
        "method": "pca",
        "total": 25_000,
        "kept": 0.21,
        "size": 10_000,
        "rows": [3, 42],
        "x": [1204, 8771],
        "y": [5310, 4402],
        "groups": ["forest", "sea"],
        "group": [0, 1],
    },
    "/api/health": {"status": "ok", "images": 25_000, "version": VERSION},
    "/api/duplicates": COPIES,
    "/api/duplicates/search": COPIES,
    "/api/duplicates/plan": {
        "version": VERSION,
        "copies": 1,
        "bytes": 204_800,
        "left": [{"reason": "left where it is", "images": 2}],
        "remembered": 0,
        "notes": [],
        "csv": "group,row,path,...\r\n",
    },
}
