"""Which tests may be skipped where `CI` is set: any other skip is a failure there.

A pytest plugin. Without it, a test that a missing tool skips would look like one that passed.
"""

import os
import platform
import re
import shutil
import sys

import pytest

LINUX, WINDOWS = sys.platform == "linux", sys.platform == "win32"

# Pattern of the reason: whether it holds on this machine, and why it is no fault.
ALLOWED = {
    r"^no photos at ": (True, "the photos beside the project are not part of the repository"),
    r"^nothing is read-only for this user": (True, "the superuser may write everywhere"),
    r"^no list of what is mapped": (not LINUX, "only Linux has /proc"),
    r"^no full disk at hand": (not LINUX, "only Linux has /dev/full"),
    r"^no CUDA device here": (not shutil.which("nvidia-smi"), "few machines have a GPU"),
    r"^has no such limit": (WINDOWS, "Windows has no limit on memory for a process"),
    r"^no package milvus==2.3.5 for this machine": (
        not (LINUX and platform.machine() == "x86_64"),
        "the last package with a Milvus server in it is made for few systems",
    ),
    r"^no network namespaces for this user": (
        not (LINUX and os.geteuid() == 0),
        "two hosts on one machine take the superuser's rights on Linux",
    ),
    r"^could not import '(gcsfs|gcp_storage_emulator|adlfs)'|^no azurite on the path": (
        True,
        "emulators of two more stores take 250 MB; they are run by hand when that code changes",
    ),
    r"^could not import 'resource'": (WINDOWS, "Windows has no module resource"),
    r"^could not import 'tomllib'": (sys.version_info < (3, 11), "it came with Python 3.11"),
}


def is_allowed(reason):
    """Tell whether a reason is on the list, and holds on this machine."""
    return any(holds and re.search(pattern, reason) for pattern, (holds, _) in ALLOWED.items())


def reason_of(report):
    """Return why something was skipped, as its author put it."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def refuse(report):
    """Turn a skip that is not on the list into a failure."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = reason_of(report)
        if not is_allowed(reason):
            report.outcome = "failed"
            report.longrepr = (
                f"skipped in CI: {reason}\nInstall what is missing, or add the reason to "
                "tests/support/skips.py with why it is no fault."
            )
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Look at each test."""
    return refuse((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Look at each module, which `importorskip` may skip as a whole."""
    return refuse((yield))
