"""Shell completion of logins, and of the names in a local store.

Each key press starts a process, so nothing here calls a cloud, opens a keyring or asks anything: logins come from
their public files, and names from the records of a local store, which are not encrypted.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from itertools import islice
from typing import Any, Final

from daskpki.errors import DaskpkiError

_MOST: Final = 2_000


def complete_login(incomplete: str) -> list[str]:
    """The logins CLUSTER/NAME of this user."""
    from daskpki import settings
    from daskpki.credentials.contexts import Contexts

    with suppress(DaskpkiError):
        titles = [saved.context.title for saved in Contexts(settings.home(os.environ)).all()]
        return [title for title in titles if title.startswith(incomplete)]
    return []


def complete_name(ctx: Any, incomplete: str) -> list[str]:
    """The names ROLE/NAME in the local store of this command line; none for a store in the cloud."""
    parameters = ctx.find_root().params
    with suppress(DaskpkiError):
        return sorted(_names(parameters.get("store"), parameters.get("cluster"), incomplete))
    return []


def _names(store: str | None, cluster: str | None, incomplete: str) -> set[str]:
    from daskpki.settings import LocalUrl, cluster_name, store_url
    from daskpki.store.local.key_slots import Unlocking
    from daskpki.store.opening import open_store

    url = store_url(os.environ, store)
    if not isinstance(url, LocalUrl):
        return set()
    with closing(open_store(url, unlock=Unlocking())) as opened:
        entries = opened.log(cluster_name(os.environ, cluster)).read_cached().certificates()
        return set(islice((entry.slug for entry in entries if entry.slug.startswith(incomplete)), _MOST))
