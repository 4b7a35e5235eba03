"""Options of a training: keywords, `config=`, and unknown names."""

import dataclasses
import inspect

import numpy as np
import pytest

import simsearch as ss
from simsearch.errors import TrainingError
from simsearch.training import config

OF_0_1_0 = {  # keywords of `train_head` in version 0.1.0, and their defaults
    "dim": 256,
    "loss": "triplet",
    "mining": "semihard",
    "margin": 0.15,
    "keep": 0.3,
    "hidden": 512,
    "dropout": 0.3,
    "epochs": None,
    "patience": None,
    "batch_size": 96,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "validation": 0.1,
    "refit": True,
    "leave_out": (),
    "finetune": False,
    "stage": None,
    "stage_rate": 1e-5,
    "checkpoint": None,
    "seed": 0,
    "progress": True,
}
QUICK = {"dim": 8, "hidden": 16, "epochs": 2, "batch_size": 12}


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 6)) + np.repeat([[0.0], [1.0]], 20, axis=0)
    return ss.ImageLibrary(rows, [f"{'ab'[i // 20]}/{i:02}.jpg" for i in range(40)])


def test_keywords_and_defaults_are_those_of_0_1_0():
    parameters = inspect.signature(ss.train_head).parameters
    assert {name: parameters[name].default for name in OF_0_1_0} == OF_0_1_0
    assert list(parameters)[:3] == ["library", "labels", "on"]


def test_every_option_is_documented():
    for field in dataclasses.fields(ss.TrainConfig):
        assert f"\n    {field.name} : " in ss.train_head.__doc__
    assert "**options" not in ss.train_head.__doc__


def test_config_and_keywords_give_the_same_head(points):
    whole = ss.train_head(points, config=ss.TrainConfig(seed=3, **QUICK), progress=False)
    mixed = ss.train_head(points, config=ss.TrainConfig(seed=9, **QUICK), seed=3, progress=False)
    keywords = ss.train_head(points, seed=3, **QUICK, progress=False)
    assert whole.head.fingerprint == mixed.head.fingerprint == keywords.head.fingerprint


@pytest.mark.parametrize(("name", "similar"), [("marign", "margin"), ("stagerate", "stage_rate")])
def test_unknown_option_is_refused_with_a_suggestion(points, name, similar):
    with pytest.raises(TypeError, match=rf"no option '{name}'; did you mean '{similar}'\?"):
        ss.train_head(points, **{name: 1})


def test_unknown_option_without_a_similar_one(points):
    with pytest.raises(TypeError, match="no option 'xyz'; there are dim, loss, mining, "):
        ss.train_head(points, xyz=1)


def test_keywords_of_type_checkers_are_the_options():
    options = {field.name for field in dataclasses.fields(ss.TrainConfig)}
    assert set(config.TrainKeywords.__annotations__) == options


def test_config_is_checked_when_made_and_frozen():
    with pytest.raises(TrainingError, match=r"keep=1: give a number from 0 to 0\.99"):
        ss.TrainConfig(keep=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ss.TrainConfig().keep = 0.5
