"""Values and moments in messages, logs and documents.

Foreign values are quoted, on one line, and cut to a length; moments are in UTC.

Messages never show the value of a setting for a key, a passphrase or a credential, since it may be the content of the
file, given by mistake instead of its path. They name the option and the variable.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
LONGEST: Final = 200
"""Characters of a value, or of another party's text, in a message."""


def shown(value: object, most: int = LONGEST) -> str:
    """Format a value by `repr`, cut to `most` characters; for a container, only its type and length."""
    if isinstance(value, (str, bytes, bytearray)):
        return repr(value) if len(value) <= most else f"{value[:most]!r}... ({len(value)} long)"
    if isinstance(value, (bool, int, float, type(None))):
        return shortened(repr(value), most)
    kind = type(value).__name__
    return f"a {kind} of {len(value)}" if isinstance(value, (list, tuple, set, dict)) else f"a {kind}"


def shortened(text: str, most: int = LONGEST) -> str:
    """Put `text` on one line of at most `most` characters, with escapes for those that could steer a terminal."""
    line = visible(" ".join(text[: 2 * most].splitlines()))
    return line if len(line) <= most else f"{line[: most - 3]}..."


def visible(text: str, keep: str = "") -> str:
    """Escape all unprintable characters in `text` except those in `keep`.

    Others wrote parts of the log and of a secret's annotations: in a terminal, control characters could move the cursor
    or reverse the direction of writing, so that the reader sees something else than the data.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode() for each in text
    )


def did_you_mean(texts: Iterable[str], known: Iterable[str]) -> str | None:
    """Suggest the known name nearest to each text, as a question; None if none is near."""
    from difflib import get_close_matches  # for errors alone

    names = sorted(set(known))
    near = [match for text in texts for match in get_close_matches(text, names, n=1, cutoff=0.8)]
    return f"did you mean {' or '.join(near)}?" if near else None


def rfc3339(moment: float | datetime) -> str:
    """Format seconds since the epoch, or a time with a zone, in UTC to the second."""
    at = moment.astimezone(UTC) if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)
    return f"{at.replace(tzinfo=None, microsecond=0).isoformat()}Z"  # strftime takes five times as long


def day(moment: float) -> str:
    """The day of a moment in seconds since the epoch, in UTC."""
    return rfc3339(moment)[:10]


def minute(moment: float | datetime) -> str:
    """A moment to the minute, for people."""
    return f"{rfc3339(moment)[:16].replace('T', ' ')} UTC"


def remaining_seconds(seconds: int) -> str:
    """`in 29 days`, `in 5 hours`; `12 days ago` for a negative number. Rounded, so that a new `7d` ends in 7 days."""
    size = abs(seconds)
    length, unit = next(scale for scale in _UNITS if size >= scale[0] or scale is _UNITS[-1])
    amount = round(size / length)
    text = f"{amount} {unit}" + ("" if amount == 1 else "s")
    return f"in {text}" if seconds >= 0 else f"{text} ago"
