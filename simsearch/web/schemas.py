"""What can be asked and answered over HTTP, as forms and JSON: names, types, examples.

An option that is not given is left to the library, so no default of a search stands here.
"""

from __future__ import annotations

import json
import math
import reprlib
from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from simsearch.errors import QueryError
from simsearch.library.paths import in_folder
from simsearch.library.types import Browsable
from simsearch.retrieval.matches import Match, Matches

_MANY = 100  # columns, or members of a list, that a condition may have
_LONG = 500  # characters of a glob; Python keeps what it makes of thousands of them
_LONGEST = 2**16  # characters of all conditions
_HUGE = 2**53  # from which on numbers are no longer told apart
_WHERE = '{"folder": "seg_train/forest", "price": {"max": 50}, "tags": ["red", "blue"]}'


class _Wishes(BaseModel):
    """Options that searches and recommendations share; they are those of `simsearch.search`."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[
        str | None,
        Field(description="Of the library that the rows are of; 409 if it has changed since."),
    ] = None
    k: Annotated[int | None, Field(description="How many matches.", examples=[24])] = None
    threshold: Annotated[
        float | Literal["auto"] | None, Field(description="The lowest cosine, or auto.")
    ] = None
    false_match_rate: Annotated[
        float | None, Field(description="Share of random pairs that may match, with auto.")
    ] = None
    where: Annotated[
        str | None,
        Field(description="JSON: a glob, or conditions on columns.", examples=[_WHERE]),
    ] = None
    diversity: Annotated[float | None, Field(description="From 0 to 1, against sameness.")] = None
    unique: Annotated[
        bool | float | None, Field(description="Fold near-duplicates; or from which cosine on.")
    ] = None

    def wishes(self) -> dict[str, Any]:
        """Put what was given as `search` takes it."""
        given = self.model_dump(include=set(_Wishes.model_fields) - {"version"}, exclude_none=True)
        if "where" in given:
            given["where"] = conditions(given["where"])
        return given


class SearchForm(_Wishes):
    """One query or several, of any kind: rows, images, addresses, in this order."""

    row: Annotated[list[int], Field(description="Of the library.")] = []
    image: Annotated[list[UploadFile], Field(description="An image's file.")] = []
    url: Annotated[list[str], Field(description="Where the server allows it.")] = []
    box: Annotated[
        str | None,
        Field(description="left,top,right,bottom: pixels or fractions.", examples=["0.5,0,1,1"]),
    ] = None
    regions: Annotated[bool | None, Field(description="Search with several parts.")] = None
    exclude_query: Annotated[
        bool | None, Field(description="Whether a row does not find itself.")
    ] = None
    combine: Annotated[
        Literal["mean", "max"] | None, Field(description="Take all queries for one taste.")
    ] = None
    weights: Annotated[
        str | None, Field(description="Of the queries, in a mean.", examples=["1,0.5"])
    ] = None

    def options(self) -> dict[str, Any]:
        """Put what was given as `search` takes it."""
        own = {"box", "regions", "exclude_query", "combine", "weights"}
        given = self.wishes() | self.model_dump(include=own, exclude_none=True)
        for name in {"box", "weights"} & given.keys():
            given[name] = _numbers(name, given[name])
        return given


class RecommendForm(_Wishes):
    """What somebody liked and what they did not."""

    liked: Annotated[list[int], Field(description="Rows.")] = []
    liked_image: Annotated[list[UploadFile], Field(description="Files.")] = []
    disliked: Annotated[list[int], Field(description="Rows.")] = []
    disliked_image: Annotated[list[UploadFile], Field(description="Files.")] = []
    exclude: Annotated[list[int], Field(description="Rows that are not wanted.")] = []
    dislike: Annotated[float | None, Field(description="Weight of the disliked.", le=_HUGE)] = None

    def recommend_options(self) -> dict[str, Any]:
        """Put what was given as `recommend` takes it, the images aside."""
        return self.wishes() | self.model_dump(include={"exclude", "dislike"}, exclude_none=True)


class ExplainForm(SearchForm, RecommendForm):
    """What was asked, as for a search or for a recommendation, and which match to explain."""

    match: Annotated[int, Field(description="Row of the match.")]


def _numbers(name: str, text: str) -> list[float]:
    """Read "0.5,0,1,1"."""
    try:
        numbers = [float(part) for part in text.split(",", _MANY)]
    except ValueError:
        numbers = [math.nan]
    if not all(abs(number) < _HUGE for number in numbers):
        raise QueryError(
            f"{name}={text!r:.80}: give up to {_MANY} numbers with commas between them"
        )
    return numbers


def conditions(text: str) -> Any:  # noqa: ANN401
    """Read what `ImageLibrary.where` takes from JSON, where a range is {"min": 1, "max": 2}.

    Raises
    ------
    QueryError
        If it is something else, or so long that nobody has written it.
    """
    if len(text) > _LONGEST:
        raise QueryError(f"where has {len(text):,} characters; give up to {_LONGEST:,}")
    try:
        asked = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QueryError(f"where={text!r:.80} is no JSON: {error}") from None
    if isinstance(asked, str):
        return _plain("path", asked)
    if not isinstance(asked, dict) or len(asked) > _MANY:
        raise QueryError(f"where={text!r:.80}: give a glob, or up to {_MANY} columns")
    return {name: _condition(name, value) for name, value in asked.items()}


def _condition(name: str, value: object) -> object:
    if isinstance(value, dict) and value.keys() <= {"min", "max"}:
        limits = value.get("min"), value.get("max")
        return tuple(None if limit is None else _plain(name, limit) for limit in limits)
    if isinstance(value, list) and len(value) <= _MANY:
        return [_plain(name, member) for member in value]
    return _plain(name, value)


def _plain(name: str, value: object) -> str | int | float:
    """Check that a value is one, of a size that columns hold."""
    if isinstance(value, str) and len(value) <= _LONG:
        return value
    if isinstance(value, (int, float)) and abs(value) < _HUGE:
        return value  # which neither None nor NaN is
    raise QueryError(
        f"where: {name!r:.80} cannot be compared with {reprlib.repr(value)}; give text of up to "
        f'{_LONG} characters, a number, a list of up to {_MANY}, or {{"min": 1, "max": 2}}'
    )


class Image(BaseModel):
    """An image of the library."""

    row: int
    path: str = Field(description="Relative to the dataset's folder.")
    caption: str
    metadata: dict[str, Any]
    image: str = Field(description="Address of the original.")
    thumbnail: str = Field(description="Address of a small copy; takes size=128, 256 or 512.")


class FoundImage(Image):
    """An image of the library, found for a query; see `simsearch.Match`."""

    rank: int
    score: float
    percentile: float | None
    duplicates: list[Image]


class Answer(BaseModel):
    """The matches of one query; see `simsearch.Matches`."""

    query: str
    box: list[float] | None
    exact: bool
    matches: list[FoundImage]


class Answers(BaseModel):
    """One answer; several for several queries that are not combined, and for regions."""

    version: str
    milliseconds: float
    answers: list[Answer]


class Page(BaseModel):
    """Some images of the library, in the order of their rows."""

    version: str
    total: int = Field(description="How many meet the condition.")
    images: list[Image]


class Folder(BaseModel):
    """A folder of the dataset."""

    name: str
    images: int


class Column(BaseModel):
    """A column of the attached table."""

    name: str
    kind: Literal["number", "text"]
    min: float | None = None
    max: float | None = None
    values: list[str] = []


class UploadLimits(BaseModel):
    """What an upload may have."""

    bytes: int
    pixels: int


class Library(BaseModel):
    """What is served, and what may be asked of it."""

    version: str
    images: int
    dim: int
    backbone: str | None
    head: str | None
    index: str | None
    folders: list[Folder]
    columns: list[Column]
    urls: bool
    explains: bool
    limits: UploadLimits
    matches: int = Field(description="The largest k.")
    auto_threshold: float | None
    skipped: int


class Health(BaseModel):
    """That the server answers, and with what."""

    status: Literal["ok"] = "ok"
    images: int
    version: str


def image(library: Browsable, version: str, row: int, *, brief: bool = False) -> dict[str, Any]:
    """Describe an image of a library, as `Image`."""
    place = f"/api/images/{row}"
    return {
        "row": row,
        "path": library.names[row],
        "caption": library.caption(row),
        "metadata": {} if brief else _plain_facts(library.facts(row)),
        "image": f"{place}?v={version}",
        "thumbnail": f"{place}/thumbnail?v={version}",
    }


def answer(library: Browsable, version: str, found: Matches) -> dict[str, Any]:
    """Put an answer in plain values, as `Answer`."""
    return {
        "query": found.query.removeprefix(in_folder(library.root or "", "")),
        "box": None if found.box is None else list(found.box),
        "exact": found.exact,
        "matches": [_match(library, version, match) for match in found],
    }


def _match(library: Browsable, version: str, match: Match) -> dict[str, Any]:
    folded = [library.find(path) for path in match.duplicates]
    return image(library, version, match.row) | {
        "rank": match.rank,
        "score": match.score,
        "percentile": None if math.isnan(match.percentile) else match.percentile,
        "duplicates": [
            image(library, version, row, brief=True) for row in folded if row is not None
        ],
    }


def _plain_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Put cells as JSON has them: a date becomes text."""
    return {
        name: cell
        if isinstance(cell, (str, int, bool)) or (isinstance(cell, float) and math.isfinite(cell))
        else str(cell)
        for name, cell in facts.items()
    }
