"""Dates and times in text: ISO 8601 and given formats, as exact spans of nanoseconds."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, NamedTuple

ISO = "iso"
DAY_FIRST, MONTH_FIRST = "%d{0}%m{0}%Y", "%m{0}%d{0}%Y"  # with one of these between:
SLASHES = "/.-"
SECOND = 10**9
DAY = 86_400 * SECOND
_EPOCH = dt.datetime(1970, 1, 1)
_ISO = re.compile(
    r"(?P<day>[0-9]{4}-[0-9]{2}(?:-[0-9]{2})?)"
    r"(?:[T ](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:[.,](?P<fraction>[0-9]{1,9}))?"
    r" ?(?P<zone>Z|[-+][0-9]{2}:?[0-9]{2})?)?"
)
_CLOCK = re.compile(r"%-?[HIMSfpcXTRrs]")


class Span(NamedTuple):
    """What a date or a time stands for: from its first nanosecond to its last, since 1970.

    In the zone `offset`, minutes east of UTC, and then in UTC; or in no zone, None.
    """

    start: int
    end: int
    offset: int | None = None


def parse_iso(text: str, *, years: bool = False) -> Span | None:
    """Read an ISO date, month or date-time, or a year where these are asked for; else None.

    Examples
    --------
    >>> parse_iso("1970-01-02"), parse_iso("2024-13-01")
    (Span(start=86400000000000, end=172799999999999, offset=None), None)
    """
    if years and re.fullmatch("[0-9]{4}", text.strip()):
        first, last = parse_iso(f"{text.strip()}-01"), parse_iso(f"{text.strip()}-12")
        return Span(first.start, last.end) if first and last else None
    found = _ISO.fullmatch(text.strip())
    if not found or (found["fraction"] and len(found["time"] or "") < len("00:00:00")):
        return None
    day, time = found["day"], found["time"]
    form = "%Y-%m-%d" if len(day) > len("2024-01") else "%Y-%m"
    if time:
        day, form = f"{day} {time}", f"{form} %H:%M" + ":%S" * (len(time) > len("00:00"))
    try:
        moment = dt.datetime.strptime(day, form)
    except ValueError:
        return None
    start = _nanoseconds(moment) + int((found["fraction"] or "").ljust(9, "0"))
    if not time:
        return Span(start, start + _days(moment, form) * DAY - 1)
    if (offset := _offset(found["zone"])) is not None:
        start -= offset * 60 * SECOND
    return Span(start, start, offset)


def parse_date(text: str, form: str) -> Span | None:
    """Read a date in a format of `strptime`, or `ISO`; None for anything else."""
    if form == ISO:
        return parse_iso(text)
    try:
        moment = dt.datetime.strptime(text.strip(), form)
    except ValueError:
        return None
    span = span_of(moment)
    if span is None or _CLOCK.search(form):
        return span
    return Span(span.start, span.start + DAY - 1, span.offset)


def span_of(value: Any) -> Span | None:  # noqa: ANN401
    """Return the span of a date or a time of `datetime`, pandas or numpy; None for other values."""
    if type(value).__name__ == "datetime64":
        if re.fullmatch("[0-9]{4}(-[0-9]{2}){0,2}", str(value)):  # a day, a month or a year
            return parse_iso(str(value), years=True)
        import pandas as pd

        value = pd.Timestamp(value)
    if not isinstance(value, dt.date) or value != value:  # noqa: PLR0124 (NaT)
        return None
    if not isinstance(value, dt.datetime):
        start = _nanoseconds(dt.datetime.combine(value, dt.time()))
        return Span(start, start + DAY - 1)
    rest = getattr(value, "nanosecond", 0)
    zone = value.utcoffset()
    moment = dt.datetime(*value.timetuple()[:6], value.microsecond)
    start = _nanoseconds(moment) + rest
    if zone is None:
        return Span(start, start)
    start -= (zone // dt.timedelta(microseconds=1)) * 1000
    return Span(start, start, int(zone.total_seconds() // 60))


def _nanoseconds(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // dt.timedelta(microseconds=1) * 1000


def _days(moment: dt.datetime, form: str) -> int:
    """Count the days of what a date names: itself, or its month."""
    if "%d" in form:
        return 1
    later = moment.replace(day=28) + dt.timedelta(days=4) if moment.month < 12 else None
    return (later.replace(day=1) - moment).days if later else 31


def _offset(zone: str | None) -> int | None:
    if zone is None:
        return None
    digits = zone.replace(":", "").lstrip("Z")
    return int(digits[0] + "1") * (int(digits[1:3]) * 60 + int(digits[3:])) if digits else 0
