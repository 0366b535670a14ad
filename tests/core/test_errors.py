"""What a Python program sees of an error of ours."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import traceback

import pytest

import daskpki
from daskpki.errors import NotFoundError

RUNS_AT_IMPORT = ("__main__", "preload", "boot.init", "cloudprovider")


def error_classes() -> list[type[BaseException]]:
    """Every class of errors of ours, in whichever module."""
    for module in pkgutil.walk_packages(daskpki.__path__, "daskpki."):
        if not any(word in module.name for word in RUNS_AT_IMPORT):
            importlib.import_module(module.name)
    known: set[type[BaseException]] = set()
    unseen: list[type[BaseException]] = [BaseException]
    while unseen:
        new = set(type.__subclasses__(unseen.pop())) - known
        known |= new
        unseen.extend(new)
    ours = (kind for kind in known if kind.__module__.startswith("daskpki"))
    return sorted(ours, key=lambda kind: (kind.__module__, kind.__qualname__))


def test_a_traceback_shows_the_way_out_also_on_another_machine() -> None:
    error = NotFoundError("no login fits name bob", hint="logins are lab/alice")
    for seen in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own bytes
        assert "".join(traceback.format_exception(seen)).endswith(
            "no login fits name bob\nhint: logins are lab/alice\n"
        )
    assert "hint" not in "".join(traceback.format_exception(NotFoundError("no login fits name bob")))


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_every_error_survives_pickling(kind: type[BaseException]) -> None:
    """Dask carries exceptions between processes by pickle, which by itself knows `args` alone."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    texts = [each.name for each in parameters if each.default is each.empty and each.kind in positional]
    error = kind(*(texts or ["text"]))
    error.add_note("as it was seen there")
    restored = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(restored), str(restored), vars(restored)) == (kind, str(error), vars(error))
