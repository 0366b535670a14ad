"""A writer whose system calls fail or kill it, as its parent's strace was told: `python -m tests.store.crashing ROOT`.

It adds payloads and appends records, and prints each acknowledgement on a line of its own once the call has returned.
"""

from __future__ import annotations

import sys
from pathlib import Path

from daskpki import naming
from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError, DaskpkiError
from daskpki.records import Draft
from daskpki.store.conformance.writers import STAMP
from daskpki.store.local.store import LocalStore
from tests.store.places import LocalPlace

SECRET = "daskpki_c_secret_x"
ROUNDS = 4


def main() -> None:
    store = LocalPlace(Path(sys.argv[1])).factory()
    try:
        for turn in range(ROUNDS):
            write(store, turn)
        store.close()
    except DaskpkiError as error:
        print(f"error {error}", flush=True)
        raise SystemExit(error.exit_code) from None


def write(store: LocalStore, turn: int) -> None:
    try:
        store.secrets.create(SECRET, labels=naming.labels("c", naming.SECRET, "x"))
    except AlreadyExistsError:
        print("created", flush=True)
    number = store.secrets.add(SECRET, Confidential(f"payload of turn {turn}" * 100))
    print(f"added {number} {turn}", flush=True)
    record = store.log("c").commit(lambda _: [Draft("note", {"turn": turn})], STAMP)[0]
    print(f"recorded {record.seq} {record.hash}", flush=True)


if __name__ == "__main__":
    main()
