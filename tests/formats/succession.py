"""`python -m tests.formats.succession`: write the fixture of a trust document that carries the words of dropped CAs.

It is the cluster of format 1 a day later, after two emergencies and a revocation. The second CA has an offline root, so
its CRL stands in the document as well.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

from daskpki import secret_names
from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.ca_keys import KeyLocations, OfflineRoot
from daskpki.authority.rollover import Successor
from tests.formats.__main__ import CLUSTER, MADE, PASSPHRASE
from tests.formats.__main__ import DATA as BEFORE
from tests.formats.archived import kept

DATA: Final = BEFORE.parent / "successions"
NEXT_DAY: Final = MADE + timedelta(days=1)


def main() -> None:
    """Write it; an existing directory is left alone."""
    DATA.mkdir()
    with tempfile.TemporaryDirectory() as scratch, closing(kept(Path(scratch), BEFORE).factory()) as store:
        places = KeyLocations(seal=lambda: PASSPHRASE, unseal=lambda: PASSPHRASE)
        authority = CertificateAuthority(store, CLUSTER, who="ops@fixture", clock=lambda: NEXT_DAY, places=places)
        root = OfflineRoot(Path(scratch) / "root.key", CLUSTER, lambda _new: PASSPHRASE)
        for successor in (Successor(), Successor(offline_root=root)):
            authority.rollover().emergency(successor)
            list(authority.rollover().reissue(give_way=False))
        authority.revoke("worker/w")
        (DATA / "trust.json").write_bytes(store.secrets.latest(secret_names.trust_id(CLUSTER)).data.reveal())
        trust = authority.trust()
        expected = {
            "epoch": trust.epoch,
            "generations": [[word.generation, word.successor] for word in trust.successions],
        }
        (DATA / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


if __name__ == "__main__":
    main()
