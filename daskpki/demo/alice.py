"""Alice's program in the demo: connects, computes a sum and prints how the workers shared it."""

from __future__ import annotations

import sys

import daskpki

_NUMBERS = 20_000_000
_WORKERS = 2


def main(address: str) -> int:
    """Connect to the scheduler at `address` and print what happened; 0 if the answer was right."""
    import dask.array as da

    with daskpki.connect(address=address, timeout=20) as client:
        client.wait_for_workers(_WORKERS, timeout=30)
        _say(f"connected to {client.scheduler.address}")
        numbers = da.arange(_NUMBERS, chunks=_NUMBERS // 20).persist()
        total = int(numbers.sum().compute())
        _say(f"the sum of 0 to {_NUMBERS - 1:,} is {total:,}")
        shares = [len(chunks) for chunks in client.has_what().values()]
        _say(f"{len(shares)} workers have {' and '.join(map(str, shares))} results")
    expected = _NUMBERS * (_NUMBERS - 1) // 2
    return 0 if total == expected else 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
