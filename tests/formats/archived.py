"""`python -m tests.formats.archived`: write the fixtures of format 2, which a log has once records were archived.

It is the store of format 1, two hundred days later.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

from daskpki import secret_names
from daskpki.authority.archiving import archive
from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.ca_keys import KeyLocations
from daskpki.authority.copy import copy_cluster
from daskpki.store.gsm.log import GsmRecordLog
from daskpki.store.local.backup import restore_backup, write_backup
from tests.formats.__main__ import CLUSTER, MADE, PASSPHRASE
from tests.formats.__main__ import DATA as WHOLE
from tests.support.gsm_places import open_place
from tests.support.local_places import LocalPlace

DATA: Final = WHOLE.parent / "format-2"
LATER: Final = MADE + timedelta(days=200)


def kept(root: Path, data: Path) -> LocalPlace:
    """The kept store of one of the formats, restored as its owner would."""
    place = LocalPlace(root)
    for name, target in (("store.backup", root / "store.backup"), ("store.key", place.key_file)):
        shutil.copyfile(data / name, target)
        target.chmod(0o600)
    restore_backup(root / "store.backup", place.directory, place.seen)
    return place


def main() -> None:
    """Write them all; an existing directory is left alone."""
    DATA.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        place = kept(Path(scratch), WHOLE)
        shutil.copy(place.key_file, DATA / "store.key")
        with closing(place.factory()) as store, open_place("grpc", None) as there, closing(there.factory()) as cloud:
            places = KeyLocations(unseal=lambda: PASSPHRASE)
            authority = CertificateAuthority(store, CLUSTER, who="ops@fixture", clock=lambda: LATER, places=places)
            list(authority.renew([authority.find("scheduler/s")]))
            cut = archive(authority.session, DATA / "archive.jsonl.gz")
            assert cut is not None
            copy_cluster(store, cloud, CLUSTER)
            log = cloud.log(CLUSTER)
            assert isinstance(log, GsmRecordLog)
            secret = secret_names.records_id(CLUSTER)
            head = cloud.secrets.latest(secret).data.reveal()
            (DATA / "records.head").write_bytes(head)
            (DATA / "records.base").write_bytes(cloud.secrets.access(secret, 1).reveal())
            expected = {"begin": list(cut.end), "head": list(authority.inventory().head)}
            (DATA / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
        write_backup(place.directory, DATA / "store.backup")


if __name__ == "__main__":
    main()
