"""A tiny labelled library to fine-tune on, and a training of it."""

import pytest
import tiny_tune
import torch

import simsearch as ss
from simsearch.backbones.precision import restore_torch_threads
from simsearch.training import head, trainable


@pytest.fixture
def quick_training(monkeypatch):
    """One thread, since the network is tiny; and a head that is trained for few epochs."""
    monkeypatch.setattr(head, "EPOCHS", 2)
    monkeypatch.setattr(trainable, "bfloat16_is_fast", lambda: False)
    with restore_torch_threads():
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuning")


@pytest.fixture(scope="session")
def library(folder):
    return tiny_tune.make_library(folder)


@pytest.fixture(scope="session")
def trained(library):
    """A fine-tuning of enough epochs to learn something."""
    with pytest.MonkeyPatch.context() as patch, restore_torch_threads():
        torch.set_num_threads(1)
        patch.setattr(head, "EPOCHS", 2)
        patch.setattr(trainable, "bfloat16_is_fast", lambda: False)
        return ss.train_head(library, **tiny_tune.SETTINGS | {"epochs": 8})
