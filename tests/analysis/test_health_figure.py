"""Figures of the health of a dataset."""

import pytest
from figures import assert_not_clipped, texts
from PIL import Image

import simsearch as ss
from simsearch.analysis.health_checks import CHECKS
from simsearch.analysis.health_figure import save_health


@pytest.fixture
def report(tmp_path):
    """Fifteen dark pictures, two copies and a file that is not in the library."""
    paths = []
    for i in range(15):
        paths.append((tmp_path / f"{i:02}.png").as_posix())
        Image.new("RGB", (40, 30), (i, i, i)).save(paths[-1])
    findings = {
        "unreadable": (ss.Finding("unreadable", "broken.jpg", note="the file is empty"),),
        "dark": tuple(ss.Finding("dark", path, i, row=i) for i, path in enumerate(paths)),
        "bright": (),
        "near_duplicate": tuple(
            ss.Finding("near_duplicate", paths[i + 1], 0.9, paths[i], "crop", i + 1) for i in (0, 2)
        ),
    }
    return ss.HealthReport(15, CHECKS, findings, {"leak": "no splits"})


def test_the_overview_has_a_row_for_each_kind_that_was_found(report):
    fig, axes = report.show()
    assert_not_clipped(fig)
    assert axes.shape == (3, 6)
    assert texts(axes[1, 0])[0] == "dark · 15"
    assert texts(axes[1, 5]) == ["10 more"]
    assert "crop 0.900" in texts(axes[2, 1])


def test_a_page_shows_one_kind_the_worst_first(report):
    fig, axes = report.show("dark", limit=8, columns=4)
    assert axes.shape == (2, 4)
    assert texts(axes[0, 0])[0] == "lightest level 0"
    assert "(8 of 15)" in fig.get_suptitle()
    assert report.show("near_duplicate", columns=3)[1].shape == (2, 2)
    assert texts(report.show("bright")[1][0, 0]) == ["no bright"]


def test_what_makes_no_sense_is_refused(report):
    for options in ({"kind": "drak"}, {"kind": "leak"}, {"limit": 0}, {"columns": 1}):
        with pytest.raises(ss.QueryError):
            report.show(**options)
    with pytest.raises(ss.QueryError, match="check_dataset"):
        ss.show_health("outputs")


def test_no_faults_are_one_cell():
    _, axes = ss.show_health(ss.HealthReport(3, CHECKS, {"dark": ()}))
    assert texts(axes[0, 0]) == ["no faults"]


def test_a_pdf_has_a_page_for_each_kind(report, tmp_path):
    save_health(report, tmp_path / "health.pdf")
    assert (tmp_path / "health.pdf").read_bytes().count(b"/Type /Page ") == 4
    save_health(report, tmp_path / "health.png")
    with Image.open(tmp_path / "health.png") as image:
        assert image.format == "PNG"
