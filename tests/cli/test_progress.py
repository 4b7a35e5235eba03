"""Progress: bars on a terminal, lines of each tenth elsewhere, nothing with --quiet."""

import pytest
from tqdm.auto import tqdm

from simsearch.cli.progress import shown_progress


def work(count, **options):
    with tqdm(total=count, desc="Embedding", unit="image", mininterval=0, **options) as bar:
        for _ in range(count):
            bar.update()


@pytest.mark.parametrize("count", [1, 7, 10, 1000])
def test_a_log_gets_a_line_for_each_tenth(capsys, count):
    with shown_progress(quiet=False):
        work(count)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == min(count, 10)
    assert lines[-1] == f"Embedding: 100% ({count:,} of {count:,} images)"
    assert all(line.startswith("Embedding: ") and "\r" not in line for line in lines)


@pytest.mark.parametrize(
    ("unit", "plural"), [("query", "queries"), ("batch", "batches"), ("B", "bytes")]
)
def test_units_have_their_plural(capsys, unit, plural):
    with shown_progress(quiet=False), tqdm(total=9, desc="Work", unit=unit, mininterval=0) as bar:
        bar.update(9)
    assert capsys.readouterr().err == f"Work: 100% (9 of 9 {plural})\n"


def test_a_log_is_spared_what_takes_no_time(capsys):
    with shown_progress(quiet=False):
        work(100, delay=60)
        work(0)
    assert capsys.readouterr().err == ""


def test_a_run_that_stops_says_how_far_it_came(capsys):
    def stop():
        with tqdm(total=100, desc="Embedding", unit="image", mininterval=0) as bar:
            bar.update(42)
            raise KeyboardInterrupt

    with shown_progress(quiet=False), pytest.raises(KeyboardInterrupt):
        stop()
    assert capsys.readouterr().err == "Embedding: 40% (42 of 100 images)\n"


def test_text_between_bars_stands_alone(capsys):
    with shown_progress(quiet=False), tqdm(total=2, unit="image", mininterval=0) as bar:
        bar.update()
        tqdm.write("a summary")
        bar.update()
    out, err = capsys.readouterr()
    assert out == "a summary\n"
    assert err == "Progress: 50% (1 of 2 images)\nProgress: 100% (2 of 2 images)\n"


def test_quiet_shows_nothing(capsys):
    with shown_progress(quiet=True):
        work(50)
    assert capsys.readouterr().err == ""


def test_bars_come_back(capsys):
    with shown_progress(quiet=False):
        pass
    work(3)
    assert "\r" in capsys.readouterr().err
