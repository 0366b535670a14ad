"""Which keys wait in the keyring for their certificates: a note beside the logins, since a keyring cannot be listed.

The note is there before the key and goes after it, so that no key waits unseen. It holds nothing secret.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from daskpki.credentials.contexts import Contexts
from daskpki.errors import NotFoundError, UsageError
from daskpki.files import names_in, read_private, write_private

_FORMAT: Final = 1
_SUFFIX: Final = ".request"


class Waiting(NamedTuple):
    """A key that `daskpki request` made: the id of the login that it will be, and whose that is."""

    id: str
    store: str
    cluster: str
    name: str

    @property
    def title(self) -> str:
        """CLUSTER/NAME, as commands print and take it."""
        return f"{self.cluster}/{self.name}" if self.name else self.id


def waiting_for(contexts: Contexts, store: str, cluster: str, name: str) -> Waiting:
    """The key of that login, whether or not there is one."""
    return Waiting(contexts.id_of(store, cluster, name), store, cluster, name)


def note(contexts: Contexts, waiting: Waiting) -> None:
    """Write down that a key waits; the directory of logins must be locked."""
    document = {"format": _FORMAT, **waiting._asdict()}
    write_private(contexts.directory / f"{waiting.id}{_SUFFIX}", json.dumps(document).encode() + b"\n", force=True)


def strike_out(contexts: Contexts, login_id: str) -> None:
    """Forget the note of that login, if there is one; the directory of logins must be locked."""
    (contexts.directory / f"{login_id}{_SUFFIX}").unlink(missing_ok=True)


def all_waiting(contexts: Contexts) -> list[Waiting]:
    """Every key that waits, ordered by cluster and name; a damaged note still tells its id, by which it can go."""
    found = []
    for name in names_in(contexts.directory):
        path = contexts.directory / name
        if path.suffix != _SUFFIX:
            continue
        try:
            document = json.loads(read_private(path))
            found.append(Waiting(path.stem, *(str(document[field]) for field in ("store", "cluster", "name"))))
        except (ValueError, KeyError, TypeError):
            found.append(Waiting(path.stem, "", "", ""))
    return sorted(found, key=lambda waiting: (waiting.title, waiting.id))


def find_waiting(contexts: Contexts, title: str) -> Waiting:
    """The key that waits for CLUSTER, CLUSTER/NAME or by its id; NotFoundError, UsageError that names several."""
    fitting = [known for known in all_waiting(contexts) if title in (known.id, known.title, known.cluster)]
    if not fitting:
        raise NotFoundError(f"there is neither a login nor a waiting key {title!r}", hint="daskpki whoami")
    if len(fitting) > 1:
        names = ", ".join(f"{known.title} in {known.store} (id {known.id})" for known in fitting)
        raise UsageError(f"several waiting keys fit {title!r}: {names}", hint="daskpki logout ID chooses one")
    return fitting[0]
