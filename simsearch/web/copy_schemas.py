"""Schemas of the review of copies: how far the search is, groups, choices, and the plan."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from simsearch.web.schemas import Image

MAX_CHOICES = 10_000
MAX_PAIRS = 10_000

State = Literal["none", "running", "ready", "failed"]


class CopyImage(Image):
    """An image of a group of copies."""

    level: str = Field(description='"identical", "near" or "similar"; "" for the one that stays.')
    edit: str = Field(description="What was edited, such as a crop; see `DuplicateGroup`.")
    score: float = Field(description="Cosine to the one that stays.")
    goes: bool = Field(description="Whether the plan says that it may go.")
    reason: str = Field(description="Why it stays.")
    width: int | None = Field(description="Pixels; null if the file cannot be read.")
    height: int | None = Field(description="Pixels, as width.")
    bytes: int | None = Field(description="Size of the file; null if it cannot be read.")


class CopyGroup(BaseModel):
    """Copies of one picture; the first one stays."""

    group: int = Field(description="Number of the group, from 1.")
    images: list[CopyImage] = Field(description="Its pictures, the one that stays first.")


class Copies(BaseModel):
    """How far the search for copies is, and some of its groups once it is ready."""

    version: str = Field(description="Version of the library that was looked through.")
    state: State = Field(description="How far the search is.")
    step: str = Field(description="What is being done.")
    done: int = Field(description="Pictures or pairs of this step that are done.")
    total: int = Field(description="Of this step; 0 where that is not known.")
    error: str = Field(description="Why it failed.")
    groups: int = Field(description="Groups of copies that were found.")
    copies: int = Field(description="Pictures that may go.")
    bytes: int = Field(description="Of these, together.")
    notes: list[str] = Field(description="What could not be compared.")
    listed: list[CopyGroup] = Field(description="Groups from `offset` on.")


class Choice(BaseModel):
    """What stays and what may go of a group."""

    model_config = ConfigDict(extra="forbid")

    group: int = Field(description="Number of the group.")
    keep: int = Field(description="Row of the picture that stays.")
    extras: Annotated[
        list[int], Field(description="Rows that may go; none to leave the group alone.")
    ]


class PlanRequest(BaseModel):
    """What to plan: every group as it was found, and some otherwise."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[
        str | None, Field(description="Version of the library; 409 if it has changed since.")
    ] = None
    choices: Annotated[
        list[Choice],
        Field(max_length=MAX_CHOICES, description="Groups of which something else stays or goes."),
    ] = []
    not_duplicates: Annotated[
        list[tuple[int, int]],
        Field(max_length=MAX_PAIRS, description="Pairs of a group to remember as no duplicates."),
    ] = []


class Left(BaseModel):
    """How many pictures the plan leaves where they are, and why."""

    reason: str = Field(description="Why they stay.")
    images: int = Field(description="How many.")


class Plan(BaseModel):
    """A plan of a clean-up; it is applied at the command line, never by the server."""

    version: str = Field(description="Version of the library that the plan is for.")
    copies: int = Field(description="Pictures that the plan lets go.")
    bytes: int = Field(description="Of these, together.")
    left: list[Left] = Field(description="What stays, by reason.")
    remembered: int = Field(description="Pairs that are remembered as no duplicates.")
    notes: list[str] = Field(description="What could not be compared.")
    csv: str = Field(description="The plan, with names relative to the dataset's folder.")


def describe_copies(
    state: State,
    version: str,
    progress: tuple[str, int, int] = ("", 0, 0),
    **known: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Describe how far a search is, as `Copies`."""
    step, done, total = progress
    nothing = {"error": "", "groups": 0, "copies": 0, "bytes": 0, "notes": [], "listed": []}
    head = {"version": version, "state": state, "step": step, "done": done, "total": total}
    return head | nothing | known
