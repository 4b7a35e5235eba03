"""Search for copies in the background: one at a time, its result kept by the library's version."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsearch.errors import ImageError, QueryError, SimsearchError
from simsearch.images.header import read_header
from simsearch.library.library import ImageLibrary
from simsearch.library.not_duplicates import mark_not_duplicates
from simsearch.web.copy_review import Review, find_copies, plan_choices, plan_text
from simsearch.web.copy_schemas import describe_copies
from simsearch.web.schemas import image

if TYPE_CHECKING:
    from simsearch.web.copy_review import Member
    from simsearch.web.copy_schemas import PlanRequest
    from simsearch.web.decoder_pool import DecoderPool
    from simsearch.web.library_manager import State

logger = logging.getLogger("simsearch.web")


class _StoppedError(Exception):
    """The search is not wanted any more."""


class _Job:
    """One search, on a thread of its own.

    Attributes
    ----------
    progress : tuple of str, int, int
        Step, done, total.
    review : Review or None
        What was found.
    error : str
        Why it failed.
    """

    def __init__(self, state: State, library: ImageLibrary, decoders: DecoderPool) -> None:
        self.version, self.library, self._decoders = state.version, library, decoders
        self.progress = ("Looking for candidates", 0, 0)
        self.review: Review | None = None
        self.error = ""
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._work, name="simsearch-copies", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End the search at its next step."""
        self._stopped.set()

    def _work(self) -> None:
        try:
            with self._decoders.in_use(one_at_a_time=True):
                self.review = find_copies(self.library, self._listen)
        except _StoppedError:
            self.error = "stopped"
        except SimsearchError as error:
            logger.warning("the search for copies failed: %s", error)
            self.error = "copies cannot be looked for; the server's log says why"
        except Exception:
            logger.exception("the search for copies failed")
            self.error = "something went wrong here; the server's log says what"

    def _listen(self, step: str, done: int, total: int) -> None:
        if self._stopped.is_set():
            raise _StoppedError
        self.progress = (step, done, total)


class CopySearch:
    """The search for copies of the served library, and plans of what was chosen.

    A further call while one runs joins it. One of an earlier version of the library is stopped.

    Parameters
    ----------
    decoders
        Which open and compare the pictures: none is decoded in this process.
    """

    def __init__(self, decoders: DecoderPool) -> None:
        self._job: _Job | None = None
        self._decoders = decoders
        self._lock = threading.Lock()

    def start(self, state: State) -> dict[str, Any]:
        """Begin a search, unless this version has one that runs or is ready.

        Raises
        ------
        QueryError
            If the library's pictures are not on this machine.
        """
        library = state.library
        if not isinstance(library, ImageLibrary):
            raise QueryError("copies are looked for in a library that lies in a folder")
        with self._lock:
            job = self._current(state)
            if job is None or job.error:
                self.close()
                self._job = _Job(state, library, self._decoders)
        return self.status(state)

    def status(self, state: State, offset: int = 0, limit: int = 0) -> dict[str, Any]:
        """Describe how far the search is, and some groups, as `copy_schemas.Copies`."""
        job = self._current(state)
        if job is None:
            return describe_copies("none", state.version)
        if job.error:
            return describe_copies("failed", state.version, error=job.error)
        if job.review is None:
            return describe_copies("running", state.version, job.progress)
        with self._decoders.in_use():
            return self._list(job, job.review, offset, limit)

    def _list(self, job: _Job, review: Review, offset: int, limit: int) -> dict[str, Any]:
        """Describe some groups."""
        numbers = list(review.groups)[offset : offset + limit]
        return describe_copies(
            "ready",
            job.version,
            groups=len(review.groups),
            copies=len(review.planned),
            bytes=sum(copy.extra.bytes for copy in review.planned),
            notes=review.notes,
            listed=[
                {"group": number, "images": [_member(job, each) for each in review.groups[number]]}
                for number in numbers
            ],
        )

    def plan(self, state: State, request: PlanRequest) -> dict[str, Any]:
        """Plan what was chosen, as `copy_schemas.Plan`, and remember what are no duplicates.

        Raises
        ------
        QueryError
            If copies have not been looked for, or a choice names what is not there.
        """
        job = self._current(state)
        if job is None or job.review is None:
            raise QueryError(
                "copies have not been looked for yet: POST /api/duplicates/search, and wait for "
                "the state 'ready'"
            )
        pairs = _pairs(job.review, request.not_duplicates)
        with self._decoders.in_use():
            plan, left = plan_choices(job.library, job.review, request.choices, pairs)
        remembered, notes = _remember(job.library, pairs)
        if remembered:
            job.review = job.review.without(pairs)
        return {
            "version": state.version,
            "copies": len(plan),
            "bytes": plan.bytes,
            "left": [{"reason": reason, "images": count} for reason, count in left.most_common()],
            "remembered": remembered,
            "notes": notes,
            "csv": plan_text(plan, job.library.root or "."),
        }

    def close(self) -> None:
        """Stop a search that runs."""
        if self._job:
            self._job.stop()

    def _current(self, state: State) -> _Job | None:
        job = self._job
        if job is None or job.version == state.version:
            return job
        job.stop()
        return None


def _pairs(review: Review, given: list[tuple[int, int]]) -> set[frozenset[int]]:
    """Check that each pair is of one group: no other pair is remembered."""
    group_of: dict[int, int] = {
        member.row: number for number, group in review.groups.items() for member in group
    }
    for a, b in given:
        if a == b or group_of.get(a) is None or group_of.get(a) != group_of.get(b):
            raise QueryError(f"rows {a} and {b} are no pair of one group")
    return {frozenset(pair) for pair in given}


def _remember(library: ImageLibrary, pairs: set[frozenset[int]]) -> tuple[int, list[str]]:
    """Remember pairs beside the library; say so where that cannot be."""
    if not pairs or not library.stored:
        return 0, []
    try:
        stored = ImageLibrary.load(library.stored[0])  # whose names are those of the next search
        names = library.paths if stored.root is None else library.names
        mark_not_duplicates(stored, [[str(names[row]) for row in pair] for pair in pairs])
    except SimsearchError as error:
        logger.warning("pairs that are no duplicates cannot be remembered: %s", error)
        note = "the pairs are left out of this plan, but cannot be remembered: "
        return 0, [f"{note}the library's folder cannot be written now"]
    return len(pairs), []


def _member(job: _Job, member: Member) -> dict[str, Any]:
    """Describe a picture of a group, as `copy_schemas.CopyImage`."""
    path = str(job.library.paths[member.row])
    width = height = size = None
    with suppress(ImageError, OSError):
        size = Path(path).stat().st_size
        header = read_header(path)
        width, height = header.width, header.height
    return image(job.library, job.version, member.row) | {
        "level": member.level,
        "edit": member.edit,
        "score": member.score,
        "goes": member.planned is not None,
        "reason": member.reason,
        "width": width,
        "height": height,
        "bytes": size,
    }
