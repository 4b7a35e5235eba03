"""Schemas of the REST API: forms of requests, JSON of answers, with descriptions and examples.

The options of a search come from `simsearch.retrieval.options`; no default stands here.
"""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field, create_model

from simsearch.errors import QueryError
from simsearch.library.paths import in_folder
from simsearch.library.types import Browsable
from simsearch.plain_json import plain
from simsearch.retrieval.matches import Match, Matches
from simsearch.retrieval.options import RankingOptions, SearchOptions, option_docs
from simsearch.web.root_path import ROOT
from simsearch.web.where import MAX_NUMBER, read_where

MAX_NUMBERS = 100  # of a list in one field
WHERE_EXAMPLE = '{"folder": "seg_train/forest", "price": {"max": 50}, "tags": ["red", "blue"]}'

# Options that a form field writes otherwise than Python: type, description, example.
FORM_TYPES: dict[str, tuple[Any, str | None, str | None]] = {
    "Threshold": (float | Literal["auto"], None, None),
    "Rows": (str, "A glob, or JSON: conditions on columns.", WHERE_EXAMPLE),
    "Box | None": (str, "left,top,right,bottom: pixels or fractions.", "0.5,0,1,1"),
    "Sequence[float] | None": (str, "Weights of the queries, in a mean.", "1,0.5"),
}
PLAIN_TYPES = {"int": int, "float": float, "bool": bool, "bool | float": bool | float, "str": str}


def option_fields(options: type[RankingOptions]) -> dict[str, Any]:
    """Return a form field for each option of a search; one that is not given is None.

    So the API has the options and descriptions of `search`, and no default of its own. An index is
    the server's choice.
    """
    docs = option_docs(options)
    made: dict[str, Any] = {}
    for field in fields(options):
        kind = str(field.type)
        if kind == "Index | None":
            continue
        text = re.sub(r" \[\d+\]_|``?", "", docs[field.name][1])
        choices = tuple(re.findall(r"""['"]([\w-]+)['"]""", kind))
        form_type, description, example = FORM_TYPES.get(
            kind, (Literal[choices] if choices else PLAIN_TYPES.get(kind), None, None)
        )
        info = Field(description=description or text, examples=[example] if example else None)
        made[field.name] = (Annotated[form_type | None, info], None)
    return made


class _OptionForm(BaseModel):
    """What searches and recommendations share."""

    model_config = ConfigDict(extra="forbid")
    option_class: ClassVar[type[RankingOptions]] = RankingOptions

    version: Annotated[
        str | None,
        Field(description="Version of the library; 409 if it has changed since."),
    ] = None

    if TYPE_CHECKING:  # the fields that `with_options` adds

        def __getattr__(self, name: str) -> Any: ...  # noqa: ANN401

    def options(self) -> dict[str, Any]:
        """Return the options that were given, as `search` takes them."""
        names = {field.name for field in fields(self.option_class)}
        given = self.model_dump(include=names, exclude_none=True)
        if "where" in given:
            given["where"] = read_where(given["where"])
        for name in {"box", "weights"} & given.keys():
            given[name] = _read_numbers(name, given[name])
        return given


_Form = TypeVar("_Form", bound=_OptionForm)


def with_options(form: type[_Form]) -> type[_Form]:
    """Add the fields of a form's `option_class`."""
    made: type[_Form] = create_model(
        form.__name__,
        __base__=form,
        __doc__=form.__doc__,
        __module__=form.__module__,
        **option_fields(form.option_class),
    )
    return made


@with_options
class SearchForm(_OptionForm):
    """One query or several, of any kind: rows, images, addresses, words, in this order."""

    option_class = SearchOptions

    row: Annotated[list[int], Field(description="Row numbers in the library.")] = []
    image: Annotated[list[UploadFile], Field(description="Image files.")] = []
    url: Annotated[list[str], Field(description="URLs of images, if the server fetches any.")] = []
    text: Annotated[
        list[str],  # no `examples`: the API page would search with them, beside any other query
        Field(description="Words: what the images show. Example: a street at night"),
    ] = []


@with_options
class RecommendForm(_OptionForm):
    """What somebody liked and what they did not."""

    liked: Annotated[list[int], Field(description="Row numbers.")] = []
    liked_image: Annotated[list[UploadFile], Field(description="Image files.")] = []
    liked_text: Annotated[list[str], Field(description="Words: what the images show.")] = []
    disliked: Annotated[list[int], Field(description="Row numbers.")] = []
    disliked_image: Annotated[list[UploadFile], Field(description="Image files.")] = []
    disliked_text: Annotated[list[str], Field(description="Words: what they do not show.")] = []
    exclude: Annotated[list[int], Field(description="Row numbers to leave out.")] = []
    dislike: Annotated[
        float | None, Field(description="Weight of the disliked.", le=MAX_NUMBER)
    ] = None

    def recommend_options(self) -> dict[str, Any]:
        """Return what was given as `recommend` takes it, the images aside."""
        names = {field.name for field in fields(RankingOptions)}
        given = {name: value for name, value in self.options().items() if name in names}
        return given | self.model_dump(include={"exclude", "dislike"}, exclude_none=True)


class ExplainForm(SearchForm, RecommendForm):
    """What was asked, as for a search or for a recommendation, and which match to explain."""

    match: Annotated[int, Field(description="Row of the match.")]


class SuggestForm(BaseModel):
    """One picture, whose parts are asked for: a row or an image file."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[
        str | None,
        Field(description="Version of the library; 409 if it has changed since."),
    ] = None
    row: Annotated[list[int], Field(description="Row number in the library.")] = []
    image: Annotated[list[UploadFile], Field(description="Image file.")] = []


def _read_numbers(name: str, text: str) -> list[float]:
    """Read "0.5,0,1,1"."""
    try:
        numbers = [float(part) for part in text.split(",", MAX_NUMBERS)]
    except ValueError:
        numbers = [math.nan]
    if not all(abs(number) < MAX_NUMBER for number in numbers):
        raise QueryError(
            f"{name}={text!r:.80}: give up to {MAX_NUMBERS} numbers with commas between them"
        )
    return numbers


class Image(BaseModel):
    """An image of the library."""

    row: int = Field(description="Row number in this version of the library.")
    path: str = Field(description="Relative to the dataset's folder.")
    caption: str = Field(description="First cells of its line in the table; empty without one.")
    metadata: dict[str, Any] = Field(description="Its line in the attached table, by column.")
    image: str = Field(description="Address of the original.")
    thumbnail: str = Field(description="Address of a small copy; takes size=128, 256 or 512.")
    width: int | None = Field(None, description="Pixels; null without shapes=true, or if unknown.")
    height: int | None = Field(None, description="Pixels, as width.")


class FoundImage(Image):
    """An image of the library, found for a query; see `simsearch.Match`."""

    rank: int = Field(description="Place in the list of matches, from 1.")
    score: float = Field(description="Cosine similarity to the query; 1 for the same image.")
    percentile: float | None = Field(
        description="Share of random pairs of the library that are less similar, in percent."
    )
    duplicates: list[Image] = Field(description="Near-duplicates folded into it, with unique.")
    box: list[int] | None = Field(description="What of it matched, with parts: pixels.")
    size: list[int] | None = Field(description="Width and height that the box lies in.")
    label: str = Field(description="Of the box, if it has one.")


class Answer(BaseModel):
    """The matches of one query; see `simsearch.Matches`."""

    query: str = Field(description="Name of the query, such as its path.")
    box: list[float] | None = Field(description="The part of the query that was searched with.")
    exact: bool = Field(description="Whether every row was compared.")
    notes: list[str] = Field(description="How the query was read, such as its centre alone.")
    matches: list[FoundImage] = Field(description="The most similar images, the best first.")


class Answers(BaseModel):
    """One answer; several for several queries that are not combined, and for regions."""

    version: str = Field(description="Version of the library that was searched.")
    milliseconds: float = Field(description="Time that the search took on the server.")
    answers: list[Answer] = Field(description="One for each query or region.")


class Parts(BaseModel):
    """Parts of a picture that are worth a search of their own."""

    version: str = Field(description="Version of the library.")
    parts: list[tuple[float, float, float, float]] = Field(
        description="Each as `box` takes it: left, top, right, bottom, in fractions. The most "
        "striking first; empty if nothing stands out, or the network pools no feature map."
    )


class Page(BaseModel):
    """Some images of the library, in the order of their rows."""

    version: str = Field(description="Version of the library that was listed.")
    total: int = Field(description="How many meet the condition.")
    images: list[Image] = Field(description="Those from offset on.")


class Folder(BaseModel):
    """A folder of the dataset."""

    name: str = Field(description='Relative to the dataset; "." for the dataset itself.')
    images: int = Field(description="How many lie directly in it.")


class Column(BaseModel):
    """A column of the attached table."""

    name: str = Field(description="As `where` takes it.")
    kind: Literal["number", "text"] = Field(description="What it holds.")
    min: float | None = Field(None, description="Smallest number.")
    max: float | None = Field(None, description="Largest number.")
    values: list[str] = Field([], description="All values of a text column that has few.")
    counts: list[int] = Field([], description="How many images have each of the values.")


class UploadLimits(BaseModel):
    """What an upload may have."""

    bytes: int = Field(description="Size of all files of a request together.")
    pixels: int = Field(description="Width times height of each image.")


class Library(BaseModel):
    """What is served, and what may be asked of it."""

    version: str = Field(description="Changes when the library does; row numbers belong to it.")
    name: str = Field(description="Of the library, where the server has several.")
    libraries: list[str] = Field(description="Names of all, each served below its own.")
    images: int = Field(description="Number of rows.")
    dim: int = Field(description="Numbers in each embedding.")
    backbone: str | None = Field(description="What made the embeddings, if that is known.")
    head: str | None = Field(description="What was trained on top of it, if anything.")
    index: str | None = Field(description="Kind of the index that is searched; null for none.")
    folders: list[Folder] = Field(description="Folders of the dataset, by name.")
    columns: list[Column] = Field(description="Columns of the attached table.")
    urls: bool = Field(description="Whether a query may be a URL.")
    embeds: bool = Field(description="Whether new images can be searched with.")
    words: bool = Field(description="Whether a query may be words.")
    explains: bool = Field(description="Whether there are heat maps.")
    parts: bool = Field(description="Whether pictures can be found by their parts.")
    limits: UploadLimits = Field(description="What an upload may have.")
    matches: int = Field(description="The largest k.")
    auto_threshold: float | None = Field(
        description='Score that threshold="auto" stands for; null in a library of one image.'
    )
    skipped: int = Field(description="Files that could not be embedded.")


class Map(BaseModel):
    """Where images lie on a map; the lists have an entry for each."""

    version: str = Field(description="Version of the library.")
    method: Literal["pca", "tsne"] = Field(description="How it was drawn.")
    total: int = Field(description="Images of the library; some of them, if it has very many.")
    kept: float | None = Field(description="Share of the variance that is seen, with pca.")
    size: int = Field(description="Of the map, in its units, across and down.")
    rows: list[int] = Field(description="Row numbers.")
    x: list[int] = Field(description="Units from the left.")
    y: list[int] = Field(description="Units from the top.")
    groups: list[str] = Field(description="Most frequent names of folders.")
    group: list[int] = Field(description="Place of each image's folder in groups; -1 for others.")


class Health(BaseModel):
    """That the server answers, and with what."""

    status: Literal["ok"] = Field("ok", description="Always ok: there is no answer otherwise.")
    images: int = Field(description="Number of rows.")
    version: str = Field(description="Version of the library.")


def image(library: Browsable, version: str, row: int, *, brief: bool = False) -> dict[str, Any]:
    """Describe an image of a library, as `Image`."""
    place = f"{ROOT.get()}/api/images/{row}"
    return {
        "row": row,
        "path": library.names[row],
        "caption": library.caption(row),
        "metadata": {} if brief else _json_facts(library.facts(row)),
        "image": f"{place}?v={version}",
        "thumbnail": f"{place}/thumbnail?v={version}",
        "width": None,
        "height": None,
    }


def answer(library: Browsable, version: str, found: Matches) -> dict[str, Any]:
    """Put an answer in plain values, as `Answer`."""
    return {
        "query": found.query.removeprefix(in_folder(library.root or "", "")),
        "box": None if found.box is None else list(found.box),
        "exact": found.exact,
        "notes": list(found.notes),
        "matches": [_describe_match(library, version, match) for match in found],
    }


def _describe_match(library: Browsable, version: str, match: Match) -> dict[str, Any]:
    folded = [library.find(path) for path in match.duplicates]
    return image(library, version, match.row) | {
        "rank": match.rank,
        "score": match.score,
        "percentile": None if math.isnan(match.percentile) else match.percentile,
        "duplicates": [
            image(library, version, row, brief=True) for row in folded if row is not None
        ],
        "box": None if match.box is None else list(match.box),
        "size": None if match.size is None else list(match.size),
        "label": match.label,
    }


def _json_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Put cells as JSON has them: a date becomes text, a number that is not finite is left out."""
    return {
        name: cell if isinstance(cell, (str, int, float, bool)) else str(cell)
        for name, cell in plain(facts).items()
        if cell is not None
    }
