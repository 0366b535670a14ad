"""Mutates what decides, one change at a time in a copy of the repository, and counts what the tests notice.

`scripts/mutation [MODULE...]` prints each module's score and every survivor as a diff; it fails below 90 %. Survivors
that `scripts/mutation.toml` spares, with a reason, do not count. Of a module's mutants `--sample` are tried at most,
always the same ones. `--tests` are others than those in scripts/mutation.toml.

A mutant may take ten times as long as the unchanged module, and a minute at least. One that takes longer counts as
noticed, since most loop for ever; how many did is printed, so that a loaded machine flatters nobody.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkerOutcome, WorkItem, WorkResult

ROOT: Final = Path(__file__).resolve().parents[1]
LEAST: Final = 0.9
SAMPLE: Final = 50
SURVIVED: Final = "survived"
_SLOWER: Final = 10
_LEAST_TIMEOUT: Final = 60.0
_BASELINE_TIMEOUT: Final = 3600.0
_OVERDUE: Final = "timeout"  # cosmic_ray.testing.run_tests says nothing else of one
_SEED: Final = 1
_SESSION: Final = "session.sqlite"
_CONFIGURATION: Final = """\
[cosmic-ray]
module-path = "{module}"
timeout = {timeout}
excluded-modules = []
test-command = "{python} -m pytest -q -x -p no:cacheprovider {tests}"
[cosmic-ray.distributor]
name = "local"
"""


def main(modules: Sequence[str], sample: int, tests: Sequence[str]) -> int:
    """Mutate these modules, or all that are configured; the exit code says whether each reached the goal."""
    configured = tomllib.loads((ROOT / "scripts" / "mutation.toml").read_text())
    settings = {module: configured[module] | ({"tests": tests} if tests else {}) for module in modules or configured}
    return int(min(mutate(module, each, sample) for module, each in settings.items()) < LEAST)


def mutate(module: str, settings: Mapping[str, Any], sample: int) -> float:
    """The part of this module's mutants that is noticed; survivors are printed."""
    with tempfile.TemporaryDirectory(prefix="daskpki-mutation-") as temporary:
        copy = Path(temporary) / "copy"
        _copy(copy)
        _configure(copy, module, settings["tests"], timeout=_BASELINE_TIMEOUT)
        began = time.monotonic()
        _cosmic_ray(copy, "baseline", "mutation.toml")
        taken = time.monotonic() - began
        _configure(copy, module, settings["tests"], timeout=max(_SLOWER * taken, _LEAST_TIMEOUT))
        _cosmic_ray(copy, "init", "mutation.toml", _SESSION)
        found = _choose(copy / _SESSION, (copy / module).read_text(), sample)
        _cosmic_ray(copy, "exec", "mutation.toml", _SESSION)
        results = list(_results(copy))
    lived = [result for result in results if result["test_outcome"] == SURVIVED]
    spared = [result for result in lived if _is_spared(result["diff"], settings.get("spared", ()))]
    overdue = sum(result["output"] == _OVERDUE for result in results)
    score = 1 - (len(lived) - len(spared)) / len(results)
    print(
        f"{module}: {len(results)} of {found} mutants tried, {len(lived)} survived, {len(spared)} of them spared,"
        f" {overdue} took too long: {score:.1%}",
        flush=True,
    )
    for result in lived:
        if result not in spared:
            print(result["diff"])
    return score


def _configure(copy: Path, module: str, tests: Sequence[str], *, timeout: float) -> None:
    written = _CONFIGURATION.format(module=module, timeout=timeout, python=sys.executable, tests=" ".join(tests))
    (copy / "mutation.toml").write_text(written)


def _copy(copy: Path) -> None:
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, files.split("\0")):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def _cosmic_ray(copy: Path, *words: str) -> None:
    subprocess.run([Path(sys.executable).with_name("cosmic-ray"), *words], cwd=copy, check=True)


def _choose(session: Path, source: str, most: int) -> int:
    """Skip all but a sample of what can be tried; how many that is."""
    mutable = _mutable(source)
    with use_db(session, WorkDB.Mode.open) as database:
        items = sorted(filter(mutable, database.work_items), key=_position)
        chosen = random.Random(_SEED).sample(items, min(most, len(items)))  # noqa: S311 - the same at each run
        tried = {item.job_id for item in chosen}
        for item in database.work_items:
            if item.job_id not in tried:
                database.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))
    return len(items)


def _position(item: WorkItem) -> tuple[int, int, str, int]:
    (mutation,) = item.mutations
    line, column = mutation.start_pos
    return line, column, mutation.operator_name, mutation.occurrence


def _mutable(source: str) -> Callable[[WorkItem], bool]:
    """Whether a mutant is to be tried: annotations are not run, and not each `*`, `-` or `[` is an operator."""
    nodes = list(ast.walk(ast.parse(source)))
    annotations = [getattr(node, field, None) for node in nodes for field in ("annotation", "returns")]
    operators: dict[str, list[ast.expr | ast.stmt]] = {
        "ReplaceBinaryOperator": [node for node in nodes if isinstance(node, ast.BinOp | ast.AugAssign)],
        "ReplaceUnaryOperator": [node for node in nodes if isinstance(node, ast.UnaryOp)],
    }

    def is_mutable(item: WorkItem) -> bool:
        line, column, name, _ = _position(item)
        within = operators.get(name.removeprefix("core/").partition("_")[0])
        if any(_contains(node, line, column) for node in annotations if node is not None):
            return False
        return within is None or any(_contains(node, line, column) for node in within)

    return is_mutable


def _contains(node: ast.expr | ast.stmt, line: int, column: int) -> bool:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return (node.lineno, node.col_offset) <= (line, column) < (node.end_lineno, node.end_col_offset)


def _results(copy: Path) -> Iterator[dict[str, Any]]:
    dump = [str(Path(sys.executable).with_name("cosmic-ray")), "dump", _SESSION]
    for line in subprocess.run(dump, cwd=copy, capture_output=True, text=True, check=True).stdout.splitlines():
        _item, result = json.loads(line)
        if result is not None and result["worker_outcome"] != "skipped":
            yield result


def _is_spared(diff: str, spared: Sequence[Mapping[str, str]]) -> bool:
    changed = [line[1:].strip() for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    return any(entry["line"] in changed for entry in spared)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("--sample", type=int, default=SAMPLE, help=f"mutants of each module (default: {SAMPLE})")
    parser.add_argument("--tests", nargs="+", default=())
    options = parser.parse_args()
    sys.exit(main(options.modules, options.sample, options.tests))
