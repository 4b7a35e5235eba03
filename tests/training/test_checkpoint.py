"""Checkpoints: a killed training resumes with the same numbers."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_tune
import torch
from tiny_tune import SETTINGS, last_epoch, same_result

import simsearch as ss
from simsearch.errors import TrainingError
from simsearch.training import finetune, trainer
from simsearch.training.trainer import Checkpoint

pytestmark = pytest.mark.usefixtures("quick_training")


class TestCheckpoint:
    def test_killed_training_resumes_with_the_same_numbers(self, library, folder, tmp_path):
        """Killed after its second epoch, it starts with the third; the end is the same."""
        whole = ss.train_head(library, **SETTINGS)
        shutil.copytree(folder / "outputs", tmp_path / "outputs")
        script = Path(tiny_tune.__file__)
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), "1"],
            env=os.environ | {"PYTHONPATH": str(Path(ss.__file__).parents[1])},
        )
        file = tmp_path / "checkpoint" / trainer.FILE_NAME
        try:
            wait_for(lambda: file.exists() and last_epoch(file) == 2, process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        numbers = []
        with pytest.MonkeyPatch.context() as patch:
            learn = finetune.FineTuner.train_epoch
            patch.setattr(
                finetune.FineTuner,
                "train_epoch",
                lambda self, number, tick: numbers.append(number) or learn(self, number, tick),
            )
            resumed = ss.train_head(library, checkpoint=tmp_path / "checkpoint", **SETTINGS)
        assert numbers == [3]
        assert same_result(whole, resumed)

    def test_finished_training_is_not_run_again(self, library, tmp_path, monkeypatch):
        first = ss.train_head(library, checkpoint=tmp_path, **SETTINGS)
        monkeypatch.setattr(finetune.FineTuner, "train_epoch", None)
        assert same_result(first, ss.train_head(library, checkpoint=tmp_path, **SETTINGS))

    def test_checkpoint_of_another_training_is_refused(self, library, tmp_path):
        ss.train_head(library, checkpoint=tmp_path, **SETTINGS)
        for changes, message in (
            ({"margin": 0.2}, r"another training \(margin was 0\.3 and is 0\.2\); delete it"),
            ({"stage": "stem"}, r"stage was \['last'\] and is \['stem'\]"),
            ({"leave_out": ["bars"]}, "images and labels was"),
            ({"seed": np.int64(4)}, "seed was 0 and is '4'|seed was 0 and is 4"),
        ):
            with pytest.raises(TrainingError, match=message):
                ss.train_head(library, checkpoint=tmp_path, **SETTINGS | changes)

    def test_damaged_checkpoint_is_refused(self, library, tmp_path):
        ss.train_head(library, checkpoint=tmp_path, **SETTINGS | {"epochs": 1})
        file = tmp_path / trainer.FILE_NAME
        file.write_bytes(file.read_bytes()[:-2000])
        with pytest.raises(TrainingError, match=r"is damaged .*; delete it to start anew"):
            ss.train_head(library, checkpoint=tmp_path, **SETTINGS | {"epochs": 1})

    def test_checkpoint_with_code_is_refused(self, library, tmp_path):
        class Harm:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "harmed",))

        torch.save({"settings": "{}", "state": Harm()}, tmp_path / trainer.FILE_NAME)
        with pytest.raises(TrainingError, match="is damaged"):
            ss.train_head(library, checkpoint=tmp_path, **SETTINGS)
        assert not (tmp_path / "harmed").exists()

    def test_checkpoint_is_locked_by_one_process(self, library, tmp_path):
        with (
            Checkpoint(tmp_path, {}).hold(),
            pytest.raises(TrainingError, match="another process is training in"),
        ):
            ss.train_head(library, checkpoint=tmp_path, **SETTINGS)

    def test_folder_that_cannot_be_written(self, library, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(TrainingError, match=r"cannot write .*free disk space and run again"):
            ss.train_head(library, checkpoint=tmp_path / "file" / "x", **SETTINGS)

    @pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
    def test_full_disk_keeps_the_last_checkpoint(self, library, tmp_path):
        import resource

        first = Checkpoint(tmp_path, {"a": 1})
        first.write({"epoch": 1})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(TrainingError, match=r"cannot write .*File too large"):
                first.write({"epoch": 2, "weights": torch.zeros(9999)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        with first.hold() as state:
            assert state == {"epoch": 1}
        assert not list(tmp_path.glob("*.part"))

    def test_checkpoint_is_kept_when_training_diverges(self, library, tmp_path, monkeypatch):
        losses = finetune.FineTuner.losses

        def spoil(tuner, number):
            for loss in losses(tuner, number):
                yield loss * float("nan") if number == 2 else loss

        with monkeypatch.context() as patch:
            patch.setattr(finetune.FineTuner, "losses", spoil)
            with pytest.raises(TrainingError, match="the loss is nan in epoch 2: lower"):
                ss.train_head(library, checkpoint=tmp_path, **SETTINGS)
        assert last_epoch(tmp_path / trainer.FILE_NAME) == 1
        assert ss.train_head(library, checkpoint=tmp_path, **SETTINGS).history[-1].number == 3


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end
        time.sleep(0.02)
