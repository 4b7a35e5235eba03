"""`simsearch check`: what it prints and writes, and its exit status."""

import numpy as np
import pytest
from PIL import Image

import simsearch as ss
from simsearch.cli.main import main


@pytest.fixture
def outputs(tmp_path):
    """Two splits of noise, with one picture in both and one dark one."""
    rng = np.random.default_rng(0)
    paths = []
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            paths.append((tmp_path / "data" / split / f"{i}.png").as_posix())
            Image.fromarray(pixels // 8 if i == 3 and split == "train" else pixels).save(paths[-1])
    Image.open(paths[0]).save(paths[-1])
    library = ss.ImageLibrary(5 + rng.normal(size=(8, 8)), paths)
    library.root = (tmp_path / "data").as_posix()
    library.save(tmp_path / "outputs")
    return (tmp_path / "outputs").as_posix()


def test_check_prints_the_report_and_writes_it(outputs, tmp_path, capsys):
    table, figure = tmp_path / "health.csv", tmp_path / "health.png"
    assert main(["check", outputs, "--csv", str(table), "--figure", str(figure)]) == 0
    report = ss.check_dataset(ss.ImageLibrary.load(outputs), progress=False)
    assert capsys.readouterr().out.strip() == str(report)
    assert len(table.read_text().splitlines()) == 1 + report.total
    assert figure.exists()


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (["--fail-on", "leak"], 3),
        (["--fail-on", "any"], 3),
        (["--fail-on", "bright", "odd_shape"], 0),
        (["--fail-on", "dark", "--threshold", "dark=1"], 0),
        (["--fail-on", "label"], 1),  # not checked: there are no labels
        (["--fail-on", "leek"], 1),
        (["--threshold", "dark"], 1),
    ],
)
def test_the_exit_status_tells_what_was_found(outputs, capsys, flags, status):
    assert main(["check", outputs, *flags]) == status
    assert bool(capsys.readouterr().err) == (status == 1)
