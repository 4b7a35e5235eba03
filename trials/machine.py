"""A state machine over all that is done with libraries, against a model of them in memory.

    python trials/machine.py --examples 300 --seed 1 --report outputs/trials/machine.json

Pictures are added, changed, renamed and deleted; libraries are embedded, given a head, indexed,
saved, searched and opened, and runs are killed or refused at any step, in any order that Hypothesis
finds. Whenever a library is opened it must hold what the model says, every row the embedding of its
picture; a search must find what a full scan of the model finds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import faults
import numpy as np
from crash import SmallLibraries, write_report
from faults import Faults, Killed, injected
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from world import DIM, TOLERANCE, World

import simsearch as ss

HEAD_DIM = 5
done: Counter[str] = Counter()


def make_head() -> ss.Head:
    """Make a head of fixed weights: 16-d to 5-d."""
    draw = np.random.default_rng(0)
    return ss.ProjectionHead([(draw.standard_normal((HEAD_DIM, DIM)), np.zeros(HEAD_DIM))])


class Libraries(RuleBasedStateMachine):
    """A dataset, its library, a second one with a head, and one that a reader has kept open."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self._folder.name), 0)
        self.headed_outputs = Path(self._folder.name) / "headed"
        self.possible: list[dict[str, int]] = []  # what may be stored: one, unless a run has died
        self.headed: dict[str, int] | None = None
        self.held: tuple[ss.ImageLibrary, dict[str, int], int] | None = None
        self.version = 0  # of what is stored
        self._small: SmallLibraries | None = None

    def teardown(self) -> None:
        if self._small:
            self._small.__exit__()
        self._folder.cleanup()

    @initialize(draw=st.randoms(use_true_random=False))
    def begin(self, draw):
        self._small = SmallLibraries(draw)
        self._small.__enter__()
        self.world.random = draw
        self.world.act(6)
        self.world.add()
        self.embed()

    @rule()
    def add(self):
        self._count("add").world.add()

    @rule()
    def change(self):
        self._count("change").world.change()

    @rule()
    def rename(self):
        self._count("rename").world.rename()

    @rule()
    def delete(self):
        self._count("delete").world.delete()

    @rule()
    def embed(self):
        library = self._count("embed").world.embed()
        self._stored(dict(self.world.pictures))
        assert self.world.fault_of(library, self.world.pictures) == ""

    @rule(
        kind=st.sampled_from(faults.KINDS),
        number=st.integers(1, 20),
        mode=st.sampled_from(faults.MODES),
    )
    def kill(self, kind, number, mode):
        try:
            with injected(Faults(kind, number, mode)):
                self._count("kill").world.embed()
        except (ss.SimsearchError, Killed):
            self.possible.append(dict(self.world.pictures))
            self.version += 1
        else:
            self._stored(dict(self.world.pictures))

    @rule()
    def open(self):
        """Open the library: it is one of those that may be stored, and from now on that one."""
        library = self._count("open").current()
        self.held = (library, self.possible[0], self.version)

    def current(self) -> ss.ImageLibrary:
        """Open the library, and know from then on which of the possible ones it is."""
        library = ss.ImageLibrary.as_stored(self.world.outputs, self.world.backbone)
        faulty = {i: self.world.fault_of(library, one) for i, one in enumerate(self.possible)}
        fitting = [self.possible[i] for i, fault in faulty.items() if not fault]
        assert fitting, faulty
        self.possible = fitting[:1]
        return library

    @precondition(lambda self: self.held)
    @rule()
    def read(self):
        """What a reader has open stays what it was, whatever has become of the files."""
        self._count("read")
        library, pictures, _ = self.held
        assert self.world.fault_of(library, pictures) == ""

    @precondition(lambda self: self.held)
    @rule()
    def save(self):
        """Save what was opened: allowed, unless the library has been replaced since."""
        self._count("save").current()
        library, pictures, version = self.held
        try:
            library.save(self.world.outputs)
        except ss.LibraryError as error:
            refused = str(error)
        else:
            refused = ""
            assert pictures == self.possible[0]
        assert not refused or ("has changed since" in refused and version != self.version)

    @rule(k=st.integers(1, 8), data=st.data())
    def search(self, k, data):
        library = self._count("search").current()
        pictures = self.possible[0]
        name = data.draw(st.sampled_from(sorted(pictures)))
        query = self.world.row(pictures[name])
        found = ss.search(library, query, k=k)
        rows = np.stack([self.world.row(pictures[each]) for each in sorted(pictures)])
        best = np.sort(rows.astype(np.float64) @ query)[::-1][:k]
        np.testing.assert_allclose(found.scores, best, atol=10 * TOLERANCE)

    @rule()
    def index(self):
        """Build an index; it finds what is stored now, and is stale for anything else."""
        library = self._count("index").current()
        index = ss.build_index(library, kind="flat", progress=False)
        exact = ss.search(library, 0, k=3)
        assert ss.search(library, 0, k=3, index=ss.load_index(library)).paths == exact.paths
        if self.held and self.held[1] != self.possible[0]:
            try:
                index.check(self.held[0])
            except ss.StaleIndexError:
                return
            raise AssertionError("an index of another library was taken")

    @rule()
    def head(self):
        """Derive a library with a head and store it elsewhere; embed brings it up to date."""
        self._count("head")
        if self.headed is None:
            self.current().with_head(make_head()).save(self.headed_outputs)
            self.headed = self.possible[0]
        else:
            ss.embed_dataset(
                self.world.dataset,
                self.headed_outputs,
                self.world.backbone,
                progress=False,
                allow_shrink=True,
            )
            self.headed = dict(self.world.pictures)
        library = ss.ImageLibrary.as_stored(self.headed_outputs)
        expected = make_head()(
            np.stack([self.world.row(v) for _, v in sorted(self.headed.items())])
        )
        np.testing.assert_allclose(library.embeddings, expected, atol=10 * TOLERANCE)

    def _stored(self, pictures: dict[str, int]) -> None:
        if self.possible != [pictures]:
            self.version += 1
        self.possible = [pictures]

    def _count(self, name: str) -> Libraries:
        done[name] += 1
        return self


def run(examples: int, steps: int, number: int) -> None:
    """Run the machine; an AssertionError or another one if the libraries leave the model."""
    machine = seed(number)(Libraries)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def main() -> int:
    """Run as asked, and write the report; 1 if the model was left."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", default="outputs/trials/machine.json")
    options = parser.parse_args()
    broken: list[str] = []
    try:
        run(options.examples, options.steps, options.seed)
    except Exception as error:  # the report says what Hypothesis has found
        notes = getattr(error, "__notes__", [])
        broken = ["\n".join([repr(error), *notes])]
    report = {
        "first_seed": options.seed,
        "last_seed": options.seed,
        "counts": dict(sorted(done.items())),
    }
    write_report(Path(options.report), {**report, "broken": broken})
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
