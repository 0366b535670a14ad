"""Mutates what decides, one change at a time in a copy of the repository, and counts what the tests notice.

`scripts/mutation [MODULE...]` prints each module's score and every survivor as a diff; it fails below 90 %. Survivors
that `scripts/mutation.toml` spares, with a reason, do not count.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
LEAST: Final = 0.9
TIMEOUT: Final = 60.0
SURVIVED: Final = "survived"

# Types are not run, and these operators change nothing else: annotations, and the text of messages.
_CONFIGURATION: Final = """\
[cosmic-ray]
module-path = "{module}"
timeout = {timeout}
excluded-modules = []
test-command = "{python} -m pytest -q -x -p no:cacheprovider -p no:randomly {tests}"
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = ["core/ReplaceBinaryOperator_BitOr_.*"]
"""


def main(modules: Sequence[str]) -> int:
    """Mutate these modules, or all that are configured; the exit code says whether each reached the goal."""
    configured = tomllib.loads((ROOT / "scripts" / "mutation.toml").read_text())
    scores = [mutate(module, configured[module]) for module in modules or configured]
    return int(min(scores) < LEAST)


def mutate(module: str, settings: Mapping[str, Any]) -> float:
    """The part of this module's mutants that is noticed; survivors are printed."""
    with tempfile.TemporaryDirectory(prefix="daskpki-mutation-") as temporary:
        copy = Path(temporary) / "copy"
        _copy(copy)
        tests = " ".join(settings["tests"])
        configuration = _CONFIGURATION.format(module=module, timeout=TIMEOUT, python=sys.executable, tests=tests)
        (copy / "mutation.toml").write_text(configuration)
        for step in ("cosmic-ray baseline", "cosmic-ray init", "cr-filter-operators", "cosmic-ray exec"):
            _run(copy, step)
        results = list(_results(copy))
    lived = [result for result in results if result["test_outcome"] == SURVIVED]
    spared = [result for result in lived if _is_spared(result["diff"], settings.get("spared", ()))]
    score = 1 - (len(lived) - len(spared)) / len(results)
    print(
        f"{module}: {len(results)} mutants, {len(lived)} survived, {len(spared)} of them spared: {score:.1%}",
        flush=True,
    )
    for result in lived:
        if result not in spared:
            print(result["diff"])
    return score


def _copy(copy: Path) -> None:
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, files.split("\0")):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def _run(copy: Path, step: str) -> None:
    name, *verbs = step.split()
    session = {"cosmic-ray baseline": ["mutation.toml"], "cosmic-ray init": ["mutation.toml", "session.sqlite"]}
    arguments = session.get(
        step, ["session.sqlite", "mutation.toml"] if not verbs else ["mutation.toml", "session.sqlite"]
    )
    subprocess.run([Path(sys.executable).with_name(name), *verbs, *arguments], cwd=copy, check=True)


def _results(copy: Path) -> Iterator[dict[str, Any]]:
    dump = [Path(sys.executable).with_name("cosmic-ray"), "dump", "session.sqlite"]
    for line in subprocess.run(dump, cwd=copy, capture_output=True, text=True, check=True).stdout.splitlines():
        _item, result = json.loads(line)
        if result is not None and result["worker_outcome"] != "skipped":
            yield result


def _is_spared(diff: str, spared: Sequence[Mapping[str, str]]) -> bool:
    changed = [line[1:].strip() for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    return any(entry["line"] in changed for entry in spared)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
