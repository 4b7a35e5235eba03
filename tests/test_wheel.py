"""The built package: what is in it, and that it works where the repository is not.

The wheel is installed into an environment of its own. Its dependencies are those of the interpreter
that runs the tests, so that nothing is downloaded.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[1]
BUILT_FROM = [
    *("simsearch", "tests", "docs", "benchmarks", "pyproject.toml", "requirements.txt"),
    *("MANIFEST.in", "README.md", "LICENSE", "Makefile", "mkdocs.yml"),
]
SCRIPTS = "Scripts" if os.name == "nt" else "bin"

pytestmark = pytest.mark.wheel


def outside():
    """Return an environment for commands that must not find the repository."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command, cwd, timeout=300):
    """Run a command outside the repository, and return its standard output."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=outside(),
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Folder with a wheel and an sdist, built from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", ".", cwd=source)
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(dist):
    (file,) = dist.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An environment that holds the wheel, and sees the packages that the tests run with."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / SCRIPTS / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", wheel]
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(run(python, "-c", code, cwd=folder).strip())
    # A path in a .pth file is searched last, and no .pth file in it is read: no editable install.
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (own / "dependencies.pth").write_text("\n".join(sorted(others)))
    return folder


@pytest.fixture(scope="module")
def simsearch(environment):
    return environment / SCRIPTS / "simsearch"


@pytest.fixture(scope="module")
def project(environment, simsearch, tmp_path_factory):
    """A folder with a library of a few sample images, made by the installed command."""
    folder = tmp_path_factory.mktemp("project")
    run(simsearch, "sample", "dataset", cwd=folder)
    for i, image in enumerate(sorted((folder / "dataset").rglob("*.jpg"))[::100]):
        (folder / "few").mkdir(exist_ok=True)
        shutil.copy2(image, folder / "few" / f"{i}.jpg")
    run(simsearch, "embed", "few", "outputs", "--backbone", "efficientnet_lite0", cwd=folder)
    return folder


def test_the_wheel_holds_every_file_of_the_package(wheel):
    package = ROOT / "simsearch"
    files = [file for file in package.rglob("*") if file.is_file()]
    expected = {
        file.relative_to(ROOT).as_posix()
        for file in files
        if file.suffix in {".py", ".pyi"} or file.name == "py.typed" or "static" in file.parts
    }
    assert {"simsearch/py.typed", "simsearch/web/static/index.html"} <= expected
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_the_sdist_can_be_built_from(dist):
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "requirements.txt", "README.md", "LICENSE"} <= held


def test_the_sdist_holds_the_tests_and_what_they_need(dist):
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"tests/conftest.py", "tests/support/scenes.py"} <= expected <= held
    assert not [name for name in held if name.endswith(".pyc")]


def test_the_metadata_is_accepted_by_an_index(dist):
    checked = run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir(), cwd=dist)
    assert checked.count("PASSED") == 2


def test_the_metadata_names_licence_and_dependencies(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
        assert name.replace("METADATA", "licenses/LICENSE") in archive.namelist()
    assert metadata["License-Expression"] == "MIT"
    required = metadata.get_all("Requires-Dist")
    assert any(line.startswith("torch>=") for line in required)
    assert {"web", "train", "faiss", "cluster", "dev"} <= set(metadata.get_all("Provides-Extra"))


def test_the_installed_package_is_the_wheel(environment):
    python = environment / SCRIPTS / "python"
    code = (
        "import simsearch, simsearch.cli as cli; print(simsearch.__file__, cli.__file__, sep='|')"
    )
    for file in run(python, "-c", code, cwd=environment).strip().split("|"):
        assert environment.resolve() in Path(file).resolve().parents


def test_the_command_line_works(simsearch, project):
    assert "embed it" in run(simsearch, "--help", cwd=project)
    assert (project / "dataset/simsearch-sample.txt").is_file()
    command = [simsearch, "search", "outputs", "few/3.jpg", "-k", 2, "--json"]
    found = json.loads(run(*command, cwd=project))
    assert len(found["matches"]) == 2
    assert all((project / match["path"]).is_file() for match in found["matches"])
    assert "few/3.jpg" not in {match["path"] for match in found["matches"]}


def test_the_server_answers(simsearch, project):
    server = subprocess.Popen(
        [simsearch, "serve", "outputs", "--port", "0"],
        cwd=project,
        env=outside(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        line = server.stdout.readline()
        assert "http://" in line, line + server.stdout.read()
        address = line.split()[-1]
        with urlopen(f"{address}api/health", timeout=60) as answer:
            assert json.load(answer)["status"] == "ok"
        with urlopen(address, timeout=60) as page:  # from the package's static files
            assert b"<html" in page.read()
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()
