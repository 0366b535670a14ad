"""Coverage-guided fuzzing: `python -m tests.fuzz NAME... [-runs=N] [-max_total_time=SECONDS]`; without a name, of all.

What libFuzzer finds worth keeping goes below the directory of DASKPKI_FUZZ_KEEP; a crash is written to the working
directory, and replayed from there by `python -m tests.fuzz NAME FILE`.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["daskpki"]):
    from tests.fuzz.targets import TARGETS, inputs


def main(arguments: list[str]) -> None:
    """Fuzz the named targets, several by turns: the first byte says which one an input is for."""
    warnings.simplefilter("ignore")
    names = [argument for argument in arguments if argument in TARGETS] or list(TARGETS)
    options = [argument for argument in arguments if argument not in TARGETS]
    kept = Path(os.environ.get("DASKPKI_FUZZ_KEEP", "fuzz-corpus")).absolute()
    kept.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        for position, data in enumerate(inputs(name)):
            (kept / f"seed-{name}-{position}").write_bytes((bytes([number]) if len(names) > 1 else b"") + data)

    def one(data: bytes) -> None:
        if len(names) == 1:
            TARGETS[names[0]].run(data)
        elif data:
            TARGETS[names[data[0] % len(names)]].run(data[1:])

    limits = ["-timeout=10", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], *limits, *options, str(kept)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
