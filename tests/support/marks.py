"""Marks that whole files share, so that `make test` can leave them out.

A pytest plugin.
"""

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SERVER = (
    "cluster",
    "web/page",
    "notebook/test_jupyterlab.py",
)  # they start Ray, Milvus Lite or a browser
ALONE = (
    "cluster/test_ray.py",
    "cluster/test_ray_hosts.py",
    "web/page",
    "notebook/test_jupyterlab.py",
)
SLOW = (  # they train, start processes, run notebooks or attack a server
    *("training", "embedding", "web", "analysis", "backbones/test_parity.py"),
    *("test_package.py", "test_samples.py", "test_compat.py", "test_cli.py", "test_house.py"),
    *("cli", "notebook", "test_mcp.py", "test_watch.py"),
)


def pytest_configure():
    """Refuse a name that has moved: its tests would silently be run."""
    missing = [name for name in SERVER + ALONE + SLOW if not (TESTS / name).exists()]
    if missing:
        raise pytest.UsageError(f"tests/support/marks.py names {missing}, which are not there")


def pytest_itemcollected(item):
    """Mark tests by where they stand, before `-m` chooses among them."""
    if any(item.path.is_relative_to(TESTS / name) for name in SERVER):
        item.add_marker("server")
    if any(item.path.is_relative_to(TESTS / name) for name in ALONE):
        item.add_marker("alone")
    if any(item.path.is_relative_to(TESTS / name) for name in SLOW):
        item.add_marker("slow")
