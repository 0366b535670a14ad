"""Dask's own log in the form of the entrypoint's, for `--log-format json`; `plan.py` names it to Dask."""

from __future__ import annotations

import logging
from typing import Any, Final

from daskpki.boot.report import structured

_SEVERITIES: Final = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


class CloudFormatter(logging.Formatter):
    """One JSON object per record, in the fields that Cloud Logging knows; an audit event's as fields of `audit`."""

    def __init__(self) -> None:
        super().__init__()
        logging.captureWarnings(True)  # which would otherwise be two lines of text each

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        severity = record.levelname if record.levelname in _SEVERITIES else "DEFAULT"
        event = getattr(record, "audit", None)
        message = record.getMessage() if event is None else _in_words(event)
        trace = self.formatException(record.exc_info) if record.exc_info else None
        return structured(severity, message, record.name, at=record.created, audit=event, stack_trace=trace)


def _in_words(event: dict[str, Any]) -> str:
    return " ".join(filter(None, (event["kind"], event["peer"], event["address"], event["detail"])))
