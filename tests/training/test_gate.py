"""Heads that look at images without a label, and leave alone what they were not taught."""

import numpy as np
import pytest

import simsearch as ss
from simsearch.backbones.gated_head import GatedHead
from simsearch.cli.main import main
from simsearch.errors import TrainingError
from simsearch.training.gate import fit_gate

QUICK = {"dim": 16, "hidden": 16, "epochs": 4, "batch_size": 36, "progress": False}


def make_library(seed=0, kinds="abcd", each=120, dim=32):
    """Kinds around centres of their own; a third of each kind lies in `aside`."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(kinds), dim))
    rows, paths = [], []
    for kind, centre in zip(kinds, centres, strict=True):
        rows.append(centre + 0.9 * rng.normal(size=(each, dim)))
        part = ("train", "test", "aside")
        paths += [f"d/{part[i % 3]}/{kind}/{i}.jpg" for i in range(each)]
    library = ss.ImageLibrary(np.concatenate(rows), paths)
    library.root = "d"
    return library


def openness(trained, library, glob):
    return trained.head.openness(library.embeddings[library.select(glob)])


@pytest.fixture(scope="module")
def library():
    return make_library()


def test_the_gate_closes_for_classes_without_labels_and_is_open_for_all_others(library):
    trained = ss.train_head(library, on="train/*", leave_out=["d"], unlabelled="aside/*", **QUICK)
    assert isinstance(trained.head, GatedHead)
    assert openness(trained, library, "test/d/*").mean() < 0.3
    for kind in "abc":
        assert openness(trained, library, f"test/{kind}/*").mean() > 0.7


def test_classes_without_labels_are_found_better_and_the_others_as_well(library):
    given = {"on": "train/*", "leave_out": ["d"], **QUICK}
    plain = ss.train_head(library, **given)
    gated = ss.train_head(library, unlabelled="aside/*", **given)

    def mean_precision(evaluation):
        return evaluation.overall["mAP"].value

    assert mean_precision(gated.after_left_out) > mean_precision(plain.after_left_out) + 0.01
    assert mean_precision(gated.after) > mean_precision(plain.after) - 0.01


def test_where_nothing_is_unknown_the_gate_is_open(library):
    trained = ss.train_head(library, on="train/*", unlabelled="aside/*", **QUICK)
    assert openness(trained, library, "test/*").mean() > 0.7


def test_labels_of_the_images_without_labels_are_not_read(library):
    given = {"on": "train/*", "unlabelled": "aside/*", "validation": 0.0, **QUICK}
    labels = np.where(library.select("aside/*"), "", library.labels)
    heads = [ss.train_head(library, labels=each, **given).head for each in (labels, library.labels)]
    assert heads[0].fingerprint == heads[1].fingerprint


def test_images_that_are_trained_on_are_no_images_without_labels(library):
    given = {"on": "train/*", "validation": 0.0, **QUICK}
    some = ss.train_head(library, unlabelled="aside/*", **given).head
    mask = library.select("aside/*") | library.select("train/*")
    assert ss.train_head(library, unlabelled=mask, **given).head.fingerprint == some.fingerprint


def test_equal_images_give_an_open_gate():
    row = np.ones((120, 4)) / 2
    library = ss.ImageLibrary(row, [f"{i}.jpg" for i in range(120)])
    weight, bias = fit_gate(library, np.arange(60), np.arange(60, 120), seed=0)
    assert np.isfinite(weight).all()
    assert 1 / (1 + np.exp(-(row[:1] @ weight.T + bias))) > 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unlabelled": "train/*"}, "gives 0 images besides .* 50 are needed"),
        ({"unlabelled": range(20)}, "50 are needed"),
        ({"unlabelled": "aside/*", "keep": 0}, "goes with keep above 0, such as 0.3"),
        ({"unlabelled": "aside/*", "finetune": True}, "leave out finetune=True"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(library, options, message):
    with pytest.raises(TrainingError, match=message):
        ss.train_head(library, on="train/*", **QUICK | options)


def test_on_the_command_line(library, tmp_path):
    library.save(tmp_path / "outputs")
    flags = ["--on", "train/*", "--unlabelled", "aside/*", "--epochs", "1", "--dim", "8"]
    assert main(["train", str(tmp_path / "outputs"), *flags]) in (0, None)
    trained = ss.ImageLibrary.load(tmp_path / "outputs_head")
    assert isinstance(trained.head, GatedHead)
    assert ss.search(trained, 3, k=2).rows
