"""Pushes a newly published trust document to schedulers, for the command line. Bounded in time; failures are reported.

The document is public and its signature is the authority, so the other side has to prove only that a CA of this cluster
issued its certificate: a CA of the new document, or of the one that the caller's credential came with, since a
scheduler may not have read about a rollover yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from distributed.comm.core import CommClosedError, FatalCommClosedError

from daskpki.cluster import trust_updates
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.security import PkiSecurity
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_state import issuers_of, trust_of
from daskpki.confidential import Confidential
from daskpki.credentials.verified import VerifiedCredential
from daskpki.identity import Role
from daskpki.pki.credential import certificate_pem, key_pem
from daskpki.pki.trust_document import TrustDocument, parse_trust

LIMIT: Final = 5.0
"""Seconds in which all schedulers have to answer."""


class Answer(NamedTuple):
    """What one scheduler made of it: the epoch that holds there now, else why it did not take it.

    `taken` is whether that is the epoch of what was brought. `refused` tells a scheduler that looked at the document
    and did not accept it from one that was not reached.
    """

    address: str
    epoch: int | None
    reason: str = ""
    taken: bool = False
    refused: bool = False


def push_trust(
    addresses: Sequence[str], held: VerifiedCredential, latest: Confidential, *, limit: float = LIMIT
) -> list[Answer]:
    """Take `latest` to each of these schedulers at once, as the client of `held`; `limit` in seconds. Never raises."""
    document = parse_trust(latest).document
    security = _security(held, document)

    async def tell_one(address: str) -> Answer:
        arguments = security.get_connection_args(Role.CLIENT.value)  # of one scheduler: at its address is no worker
        try:
            epoch = await asyncio.wait_for(trust_updates.send_trust(address, arguments, latest), limit)
            return Answer(address, epoch, taken=epoch == document.epoch)
        except PermissionError as refusal:
            return Answer(address, None, str(refusal), refused=True)
        except TimeoutError:
            return Answer(address, None, f"no answer within {limit:g} s")
        except FatalCommClosedError as refusal:  # with words of our own or of the other side
            return Answer(address, None, str(refusal))
        except CommClosedError:
            return Answer(address, None, "it closed the connection")
        except OSError as error:
            return Answer(address, None, str(error) or type(error).__name__)

    async def tell_all() -> list[Answer]:
        return list(await asyncio.gather(*map(tell_one, addresses)))

    return asyncio.run(tell_all())


def _security(held: VerifiedCredential, document: TrustDocument) -> PkiSecurity:
    credential = held.credential
    trust = trust_of(document)
    trust = trust._replace(anchors=(*trust.anchors, *held.trust.roots), issuers=trust.issuers | issuers_of(held.trust))
    pair = KeyPair(certificate_pem(credential), key_pem(credential))
    return PkiSecurity({Role.CLIENT: Enforcement(credential.identity, pair, trust)})
