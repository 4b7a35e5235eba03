"""The training loop: schedules, scaled gradients, early stopping."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from simsearch.errors import TrainingError
from simsearch.training.finetune import warmup_cosine
from simsearch.training.trainer import EarlyStopping, Epoch, Learner, best_epoch, run_epochs


class OneWeight(Learner):
    """A single weight; each batch is a function of it that gives the loss."""

    title = "Test"

    def __init__(self, batches, scaler=None):
        self.module = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.module.weight)
        groups = [(self.module.parameters(), 0.1)]
        super().__init__({"module": self.module}, groups, 0.0, len(batches), scaler)
        self.functions, self.rates = batches, []
        self.scheduler = LambdaLR(self.optimizer, lambda step: 1 / (1 + step))

    def losses(self, number):
        for function in self.functions:
            self.rates.append(self.optimizer.param_groups[0]["lr"])
            yield function(self.module.weight.sum())


def square(weight):
    return weight**2


def overflow(weight):
    """A loss of 0 whose gradient is infinite."""
    return (weight - weight.detach()).abs().sqrt()


class TestLearner:
    def test_learning_rate_follows_the_schedule_batch_by_batch(self):
        learner = OneWeight([square] * 3)
        shown = []
        mean = learner.train_epoch(1, shown.append)
        assert learner.rates == pytest.approx([0.1, 0.1 / 2, 0.1 / 3])
        assert shown == sorted(shown, reverse=True)
        assert mean == pytest.approx(sum(shown) / 3)

    def test_overflowing_batch_is_skipped_and_the_schedule_waits(self):
        learner = OneWeight([overflow, square], torch.amp.GradScaler("cpu"))
        scale = learner.scaler.get_scale()
        learner.train_epoch(1, lambda loss: None)
        assert learner.scaler.get_scale() < scale
        assert learner.rates == [0.1, 0.1]
        assert learner.module.weight.item() == pytest.approx(0.9)  # one step of AdamW

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda weight: weight * math.nan, "the loss is nan in epoch 4"),
            (lambda weight: weight * 1e7, "the weights grow without limit in epoch 4"),
        ],
    )
    def test_divergence_is_an_error(self, function, message):
        learner = OneWeight([function])
        with torch.no_grad():
            learner.module.weight.mul_(1e7 if "weights" in message else 1)
        with pytest.raises(TrainingError, match=f"{message}: lower learning_rate="):
            learner.train_epoch(4, lambda loss: None)

    def test_batches_are_closed_when_training_diverges(self):
        closed = []

        class Closing(OneWeight):
            def losses(self, number):
                try:
                    yield from super().losses(number)
                finally:
                    closed.append(number)

        with pytest.raises(TrainingError, match="the loss is inf"):
            Closing([lambda weight: weight * math.inf, square]).train_epoch(2, lambda loss: None)
        assert closed == [2]


class TestRunEpochs:
    def test_stops_early_with_the_weights_of_the_best_epoch(self):
        learner, weights = OneWeight([square]), []

        def validate():
            weights.append(learner.module.weight.item())
            return [0.3, 0.8, 0.8, 0.5, 0.9][len(weights) - 1]

        history = run_epochs(learner, EarlyStopping(9, 2), validate, progress=False)
        assert [epoch.mAP for epoch in history] == [0.3, 0.8, 0.8, 0.5]
        assert learner.module.weight.item() == weights[1]

    def test_best_epoch_is_the_last_without_validation(self):
        history = [Epoch(1, 0.5, math.nan), Epoch(2, 0.7, math.nan)]
        assert best_epoch(history).number == 2


def test_warm_up_and_cosine():
    steps = [warmup_cosine(progress) for progress in (0.01, 0.05, 0.1, 0.55, 1)]
    assert steps == pytest.approx([0.1, 0.5, 1, 0.5, 0])
