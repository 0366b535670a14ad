"""A credential in one file: a secret's payload as Secret Manager has it, or a PEM bundle of key, leaf and chain.

The Secrets Store CSI driver and GKE's add-on mount one file for each secret, and replace all of them in one step. One
file is read in one go, so key and certificate always belong together. The trust document lies beside it as trust.json,
or comes from the store: CAs that vouch for it, as a directory has them, are not there, so DASKPKI_CA_SHA256 may say
which one has to.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.credentials.directory import TRUST_FILE, check_directory, parse_leaf, read_checked
from daskpki.credentials.verified import issuing_generation
from daskpki.errors import CorruptError, NotFoundError
from daskpki.files import is_there
from daskpki.pki import pem
from daskpki.pki.credential import Credential, parse_credential
from daskpki.pki.keys import parse_key, serialize_key
from daskpki.pki.trust_document import TrustDocument

SETTING: Final = "the credential file (--credential-file, DASKPKI_CREDENTIAL_FILE)"
_TRUST: Final = f"{TRUST_FILE} beside {SETTING}"


class CredentialFile(NamedTuple):
    """Contents of the file: certificates (DER), the key (PKCS#8, DER), and the trust document if one lies beside it.

    `payload` is Secret Manager's; a PEM bundle has none, and its cluster is known only from the leaf.
    """

    leaf: bytes
    chain: tuple[bytes, ...]
    key: Confidential | None
    trust: Confidential | None
    payload: Credential | None

    def credential(self, trust: TrustDocument, now: datetime) -> Credential:
        """The credential, of the cluster of `trust`; NotTrustedError when a bundle leads to none of its CAs."""
        return self.payload or Credential(
            cluster=trust.cluster,
            identity=parse_leaf(self.leaf, SETTING),
            generation=issuing_generation(self.leaf, self.chain, trust, now),
            key=self.key,
            leaf=self.leaf,
            chain=self.chain,
        )


def load_file(path: Path) -> CredentialFile:
    """Read the file; raises what `daskpki.credentials.directory.load_directory` does."""
    if not is_there(path):
        raise NotFoundError(f"{SETTING} is not there", hint="mount the secret's payload, or a PEM bundle, at that path")
    check_directory(path.parent, f"the directory of {SETTING}")
    data = Confidential(read_checked(path, SETTING, secret=True, mounted=True))
    beside = path.with_name(TRUST_FILE)
    trust = Confidential(read_checked(beside, _TRUST)) if is_there(beside) else None
    if pem.is_pem(data.reveal()):
        key, leaf, *chain = _parse_bundle(data.reveal())
        return CredentialFile(leaf, tuple(chain), Confidential(key), trust, None)
    payload = parse_credential(data)
    return CredentialFile(payload.leaf, payload.chain, payload.key, trust, payload)


def _parse_bundle(data: bytes) -> list[bytes]:
    """The key (PKCS#8, DER), then the certificates, in whichever order key and certificates stand in the file."""
    blocks = pem.parse_pem(data, SETTING)
    keys = [(label, der) for label, der in blocks if label.endswith(pem.PRIVATE_KEY)]
    certificates = [der for label, der in blocks if label == pem.CERTIFICATE]
    if len(keys) != 1 or not certificates or len(keys) + len(certificates) != len(blocks):
        raise CorruptError(
            f"{SETTING} contains {', '.join(label for label, _ in blocks)}",
            hint="one private key, the leaf, and the CAs that signed it below",
        )
    ((label, der),) = keys
    key = parse_key(Confidential(pem.encode_pem(der, label)), f"the key in {SETTING}")
    return [serialize_key(key).reveal(), *certificates]
