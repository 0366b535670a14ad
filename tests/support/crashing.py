"""A process whose system calls fail or kill it, as its parent's strace was told.

`python -m tests.support.crashing write ROOT` adds payloads and appends records, `... create ROOT` makes a store. Each
acknowledgement is a line of its own, written once the call has returned.
"""

from __future__ import annotations

import sys
from pathlib import Path

from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError
from daskpki.records import Draft
from daskpki.store.local.store import LocalStore
from daskpki.store.testing.backing import STAMP
from tests.support.local_places import LocalPlace

SECRET = "daskpki_c_secret_x"
ROUNDS = 4


def main() -> None:
    actions = {"write": write_all, "create": create}
    try:
        actions[sys.argv[1]](LocalPlace(Path(sys.argv[2])))
    except DaskpkiError as error:
        say(f"error {error}")
        raise SystemExit(error.exit_code) from None


def create(place: LocalPlace) -> None:
    place.create().close()
    say("made")


def write_all(place: LocalPlace) -> None:
    store = place.factory()
    for turn in range(ROUNDS):
        write(store, turn)
    store.close()


def write(store: LocalStore, turn: int) -> None:
    number = store.secrets.add(SECRET, Confidential(f"payload of turn {turn}" * 100))
    say(f"added {number} {turn}")
    record = store.log("c").commit(lambda _: [Draft("note", {"turn": turn})], STAMP)[0]
    say(f"recorded {record.seq} {record.hash}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
