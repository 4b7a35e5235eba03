"""The quick form of the long proofs below trials/, and proof that these can fail."""

import sys
from pathlib import Path

import pytest

TRIALS = Path(__file__).parents[1] / "trials"
sys.path.insert(0, str(TRIALS))

import crash  # noqa: E402
import faults  # noqa: E402
import machine  # noqa: E402
from world import World  # noqa: E402

from simsearch.library import files  # noqa: E402

FOREVER = float("inf")


def broken(found):
    counted = list(found)
    assert counted
    return [each for each in counted if each[1]]


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_is_lost_and_nothing_served_that_was_not_embedded(tmp_path, seed):
    assert broken(crash.crash_at_every_step(World(tmp_path, seed), FOREVER, every=5)) == []


def test_no_kill_at_a_random_instant_loses_anything(tmp_path):
    assert broken(crash.kill_at_random(World(tmp_path, 0), FOREVER, rounds=2)) == []


@pytest.mark.parametrize("seed", range(4))
def test_no_flipped_bit_is_served(tmp_path, seed):
    assert broken(crash.flip_bits(World(tmp_path, seed), FOREVER, rounds=6)) == []


def test_libraries_stay_as_the_model_has_them():
    machine.run(examples=4, steps=15, number=0)


# The proofs can fail


def test_a_library_that_is_not_synced_is_found(tmp_path, monkeypatch):
    """What is not on the disk when its manifest comes is lost with the power."""
    written = files.write_array

    def write_unsynced(file, blocks, count):
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda descriptor: None)
            return written(file, blocks, count)

    monkeypatch.setattr(files, "write_array", write_unsynced)
    found = crash.crash_at_every_step(World(tmp_path, 0), FOREVER, ("rename",))
    assert any("lost" in fault for _, fault in found)


def test_files_that_are_replaced_before_the_manifest_counts_are_found(tmp_path, monkeypatch):
    """Without the manifest beside them, which commits all at once."""
    recorded = files.record_files

    def move_first(part, contents):
        found = recorded(part, contents)
        for file in contents:
            file.replace(part.parent / file.name)
        return found

    monkeypatch.setattr(files, "record_files", move_first)
    found = crash.crash_at_every_step(World(tmp_path, 0), FOREVER, ("rename",))
    assert any("lost" in fault for _, fault in found)


def test_a_flipped_bit_that_nobody_looks_for_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "matches_record", lambda file, record: True)
    monkeypatch.setattr("simsearch.library.block_digests.damaged_blocks", lambda *_: [])
    monkeypatch.setattr("simsearch.library.verify.damaged_in_file", lambda *_: [])
    assert broken(crash.flip_bits(World(tmp_path, 2), FOREVER, rounds=6))


def test_a_fault_is_counted_and_comes_at_its_step(tmp_path):
    world = World(tmp_path, 0)
    world.act(5)
    with faults.injected(faults.Faults(None)) as counting:
        world.embed()
    assert counting.steps["write"] > counting.steps["fsync"] > 3
    assert counting.steps["rename"] > 3
    assert not counting.happened
    world.act(3)
    with pytest.raises(faults.Killed), faults.injected(faults.Faults("fsync", 2)) as fault:
        world.embed()
    assert fault.happened
    assert fault.steps["fsync"] == 2
