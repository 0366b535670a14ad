"""The page of dependencies and their licences: `python -m scripts.dependencies` writes it.

It follows the requirements of what is installed from daskpki's own, extra by extra, and takes each licence from the
package's own metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "dependencies.md"
EXTRAS: Final = ("", "cli", "gcp", "kms", "demo", "cloudprovider")
_HEAD: Final = """\
# Dependencies and their licences

These are the packages that `pip install daskpki` and each extra install, with the licence that each package states.
`python -m scripts.dependencies` writes this page. `scripts/container/requirements.txt` locks the versions in the
container, and each release has a bill of materials (`scripts/sbom`).

| package | comes with | licence |
|---|---|---|
"""
_KNOWN: Final = {"BSD License": "BSD", "MIT License": "MIT", "Apache Software License": "Apache-2.0"}


def page() -> str:
    """The whole page."""
    found: dict[str, tuple[str, str]] = {}
    for extra in EXTRAS:
        for package in sorted(_closure("daskpki", extra)):
            if package != "daskpki" and package not in found:
                found[package] = (extra or "daskpki", licence(distribution(package)))
    rows = [f"| {package} | {source} | {words} |" for package, (source, words) in sorted(found.items())]
    return _HEAD + "\n".join(rows) + "\n"


def _closure(package: str, *extras: str) -> set[str]:
    """The packages that these extras need, by way of others too, as far as they are installed."""
    seen: set[tuple[str, str]] = set()
    waiting = [(package, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        waiting += _needs(name, extra)
    return {name for name, _ in seen}


def _needs(package: str, extra: str) -> Iterator[tuple[str, str]]:
    for text in distribution(package).requires or ():
        wanted = Requirement(text)
        if wanted.marker is None and extra:
            continue  # it was followed without the extra already
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        try:
            distribution(name)
        except PackageNotFoundError:
            continue
        yield from ((name, each) for each in ("", *wanted.extras))


def licence(package: Distribution) -> str:
    """What the package's metadata says: an SPDX expression, else its classifiers, else one short line."""
    said: Any = package.metadata  # its protocol knows no `get`
    if expression := said.get("License-Expression"):
        return str(expression)
    named = [
        entry.rpartition(" :: ")[2] for entry in said.get_all("Classifier") or () if entry.startswith("License ::")
    ]
    if named:
        return ", ".join(_KNOWN.get(entry, entry) for entry in named)
    first = (said.get("License") or "").strip().splitlines()
    return first[0] if first else "not stated"


if __name__ == "__main__":
    PAGE.write_text(page())
