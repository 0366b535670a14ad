"""The entrypoint's messages on stderr: notes while it waits, and one line with cause and remedy if it gives up.

They are text for people, or with `--log-format json` one JSON object a line in Cloud Logging's fields:
https://cloud.google.com/logging/docs/structured-logging. `CloudFormatter` gives Dask's own log the same form.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from daskpki.errors import DaskpkiError

TEXT: Final = "text"
JSON: Final = "json"
_WHO: Final = "daskpki-entrypoint"
_BUG: Final = 1


class BootLog(NamedTuple):
    """Writes the entrypoint's messages. Each line is one write, since a node's programs share stderr."""

    format: str = TEXT

    def note(self, text: str) -> None:
        """Write a line of normal progress."""
        self._say("INFO", text)

    def warn(self, text: str) -> None:
        """Write a warning: a problem that may pass, or a risk."""
        self._say("WARNING", text)

    def report(self, error: Exception) -> int:
        """Write the error that ended the boot and its remedy, or that the error is a bug; return the exit code."""
        kind = type(error).__name__
        if isinstance(error, DaskpkiError):
            code, hint = error.exit_code, error.hint
            self._say("ERROR", error.with_hint, exit_code=code, error=kind, cause=str(error), remedy=hint)
            return code
        import traceback

        trace = "".join(traceback.format_exception(error))
        shown = f"{kind} in daskpki-entrypoint itself"
        if self.format != JSON:
            with suppress(OSError):
                sys.stderr.write(trace)
        self._say("CRITICAL", shown, exit_code=_BUG, stack_trace=trace)  # Error Reporting groups by this field
        return _BUG

    def _say(self, severity: str, text: str, **more: Any) -> None:
        lead = "error: " if "exit_code" in more else ""
        line = structured(severity, text, _WHO, **more) if self.format == JSON else f"{_WHO}: {lead}{text}"
        with suppress(OSError):  # a full disk behind stderr: the exit code is still right
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def structured(severity: str, message: str, logger: str, *, at: float | None = None, **more: Any) -> str:
    """Format a line for Cloud Logging; `at` in seconds since the epoch (default: now); in `more`, None is left out."""
    import json

    time = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    fields = {
        "severity": severity,
        "time": time.isoformat(timespec="microseconds"),
        "message": message,
        "logging.googleapis.com/labels": {"logger": logger},
    }
    return json.dumps(fields | {name: value for name, value in more.items() if value is not None})


_SEVERITIES: Final = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


class CloudFormatter(logging.Formatter):
    """One JSON object per record, in the fields that Cloud Logging knows; an audit event is an object in `audit`."""

    def __init__(self) -> None:
        super().__init__()
        logging.captureWarnings(True)  # otherwise each warning is two lines of text

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line."""
        severity = record.levelname if record.levelname in _SEVERITIES else "DEFAULT"
        event = getattr(record, "audit", None)
        words = [] if event is None else [event[part] for part in ("kind", "peer", "address", "detail")]
        message = " ".join(filter(None, words)) or record.getMessage()
        trace = self.formatException(record.exc_info) if record.exc_info else None
        return structured(severity, message, record.name, at=record.created, audit=event, stack_trace=trace)
