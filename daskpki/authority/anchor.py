"""The trust anchor of a command: the newest trust document that verifies, and the log that follows from it.

The document (D) is judged by a pin (`--ca-sha256`), else by the CAs that this user saw before
(`daskpki.store.rollback_guard`). On first use there is neither, so the document's own CA is trusted. A log counts only
if it has the record that D names, and every commit after that record is signed (`daskpki.signed_commits`). Before there
is a document, the log is judged from its first record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust import verify_trust
from daskpki.pki.trust_document import TrustDocument, TrustPayload
from daskpki.pki.verify import verify_signature
from daskpki.records import CA_RETIRED, EMPTY, Head, Record
from daskpki.signed_commits import Trusted, after_records, commit_bytes, generations_of, verify_commits
from daskpki.store.append_chain import AppendChain, ChainHead, report_foreign, trust_chain, verify_no_rival
from daskpki.store.port import Store


class Anchored:
    """Judges the documents and the log of one cluster by what this user knows of it."""

    def __init__(self, store: Store, cluster: str, clock: Callable[[], datetime], pin: str | None = None) -> None:
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._pin = pin
        self._document: TrustDocument | None = None
        self._points: list[Trusted] = []
        self._refusal: str | None = None
        self._unreported = False
        self.thorough = False
        """True if commits that an earlier command verified are verified again (`audit --verify`)."""
        self.in_emergency = False
        """True for `rotate-ca --emergency`, which continues an interrupted one."""
        self.old_key_lost = False
        """True for a command that begins a new root of trust, since the old key is lost."""

    @property
    def chain(self) -> AppendChain[TrustPayload]:
        """The chain of trust documents, of which only those that verify count."""
        return trust_chain(self._store.secrets, self._cluster, self._counts, self._report)

    def document(self) -> TrustDocument | None:
        """The newest document that verifies, looked for once; None before the first.

        Also None if the documents that were put into the store do not follow from this user's memory: the log is then
        judged from its first record, and must have the remembered record.

        NotTrustedError when documents of two different roots verify, and nothing known here decides between them.
        """
        if self._document is None:
            chain = self.chain
            # `latest` may lag; with a remembered document that is enough, since a commit finds newer ones
            head = chain.read_cached().head if self.basis == "seen" else chain.head()
            if head is None and chain.foreign:
                self._refusal = chain.foreign[max(chain.foreign)]
                if self._pin:
                    raise NotTrustedError(
                        f"the pin fits no trust document of cluster {self._cluster!r}: {self._refusal}"
                    )
            if head is not None:
                seen = self._store.memory.trust(self._cluster)
                if not self._pin and (seen is None or seen.epoch != head.link.seq):  # else it was compared before
                    verify_no_rival(chain, head)
                document = head.payload.signed.document
                if self.basis == "first use" and self._store.memory.lasts:
                    import logging

                    what = "first use of cluster %s here: its CA has SHA-256 %s; compare it (--ca-sha256 HEX pins one)"
                    ca_sha256 = fingerprint(document.active.certificate)
                    logging.getLogger("daskpki").warning(what, self._cluster, ca_sha256)
                self.note(document)
        return self._document

    @property
    def basis(self) -> str:
        """The basis on which the newest document is judged: `pin`, `seen` or `first use`."""
        if self._pin:
            return "pin"
        return "seen" if self._store.memory.trust(self._cluster) is not None else "first use"

    def note(self, document: TrustDocument) -> None:
        """Remember a document as the newest: it was verified, or this command signed it."""
        self._document = document
        self._store.memory.note_trust(self._cluster, document.epoch, document.authorities)

    def trust_own(self, records: Sequence[Record]) -> None:
        """Trust the records that this command has just appended to a log that counted."""
        self._points.append(after_records(self._points[-1], records))

    def judge(self, head: Head, after: Callable[[int], Iterator[Record]]) -> Collection[str]:
        """Decide whether a log with that head counts (`daskpki.store.port.Judge`)."""
        start = self._start(head, after)
        try:
            point = verify_commits(self._cluster, start, after(start.head.seq))
        except NotTrustedError as error:
            if not (self.old_key_lost and self._store.url.startswith("local:")):
                raise type(error)(str(error), hint=self._hint(error)) from None
            # an earlier run was interrupted: the lost key signed none of its records; the store's own key sealed them
            point = after_records(start, list(after(start.head.seq)))
        if point.head != head:
            raise CorruptError(f"the log of {self._cluster!r} does not lead to record {head.seq}")
        self._points.append(point)
        self._look_again(point)
        if self._document is not None and not self.old_key_lost:
            begin = _named_by(self._document)
            if point.generations == begin.generations:
                self._store.memory.note_verified(self._cluster, begin.head, point.head)
        return self._places(point, after)

    def _look_again(self, point: Trusted) -> None:
        """Look for a newer document, if the log leads to one that did not follow from what was known before.

        UsageError if the pin hides it: what is published without the newest document, no running node follows.
        """
        known = self._document
        dropped = {number for number, made in point.generations.items() if made.status == CA_RETIRED}
        gone = [anchor for anchor in known.authorities if anchor.generation in dropped] if known else []
        if self._unreported and self._pin in {fingerprint(anchor.certificate) for anchor in gone}:
            raise UsageError("the pinned CA was dropped since", hint="--ca-sha256 HEX has to be that of the CA in use")
        if (self._unreported or (known and known.active in gone)) and not self.old_key_lost:
            self._document, self._unreported = None, False
            self._document = self.document() or known

    def _report(self, secret: str, foreign: Mapping[int, str]) -> None:
        """Report documents that do not count; before the log was judged, it may still show that they do."""
        self._unreported = not self._points
        if not self._unreported:
            report_foreign(secret, foreign)

    def _hint(self, error: NotTrustedError) -> str:
        if self._refusal and self._document is None:
            return f"{self._refusal}; if the CA was replaced without its old key: --ca-sha256 HEX of the new one"
        return error.hint or (f"{_CUT_OFF}; else: {_FORGED}" if self._store.url.startswith("local:") else _FORGED)

    def _start(self, head: Head, after: Callable[[int], Iterator[Record]]) -> Trusted:
        """Find the newest trusted point that the log contains."""
        for point in reversed(self._points):
            if point.head.seq <= head.seq and _has(point.head, after):
                return point
        document = self.document()
        if document is None:
            return Trusted()
        start = _named_by(document)
        if head.seq < start.head.seq or not _has(start.head, after):
            raise NotTrustedError(
                f"the log of cluster {self._cluster!r} does not contain record {start.head.seq}, which the trust "
                f"document of epoch {document.epoch} names (it ends at record {head.seq}): it was cut off or rewritten",
                hint="restore the store from a backup, and find out who could write to it",
            )
        # after 100,000 leaves, verifying all commits since then took each command 3 s
        known = start.head if self._pin or self.thorough else self._store.memory.verified(self._cluster, start.head)
        return start._replace(head=known) if known.seq <= head.seq and _has(known, after) else start

    def _places(self, point: Trusted, after: Callable[[int], Iterator[Record]]) -> Collection[str]:
        """Places (of new secrets) that the last commit's signatures cover; none while the old key is lost."""
        found = set[str]()
        if self.old_key_lost:
            return found
        for record in after(point.head.seq - 1) if point.head != EMPTY else ():
            for signature in record.signatures or ():
                known = point.generations.get(signature.generation)
                if known is not None and known.issuing is not None:
                    data = commit_bytes(self._cluster, signature.generation, point.head, signature.place)
                    verify_signature(known.issuing, signature.value, data, "the signature of the last commit")
                    found.add(signature.place)
        return found

    def _counts(self, found: ChainHead[TrustPayload]) -> bool:
        seen = self._store.memory.trust(self._cluster)
        known = () if seen is None or self._pin else seen.authorities
        if self._document is not None and not self._pin:
            known = self._document.authorities
        signed = found.payload.signed
        if not self._pin and self._leads_to(signed.document):
            known = ()
        verify_trust(signed, cluster=self._cluster, now=self._clock(), pin_sha256=self._pin, known=known)
        return True

    def _leads_to(self, document: TrustDocument) -> bool:
        """True if the log, judged from what was known before, made the CA that is active in this document.

        A reader who missed more rollovers than the document has statements for follows them by the log.
        """
        if not self._points:
            return False
        made = self._points[-1].generations.get(document.active.generation)
        return made is not None and made.status != CA_RETIRED and made.issuing == document.active.issuing


def _named_by(document: TrustDocument) -> Trusted:
    return Trusted(Head(*document.log), generations_of(document.authorities))


def _has(wanted: Head, after: Callable[[int], Iterator[Record]]) -> bool:
    if wanted == EMPTY:
        return True
    record = next(iter(after(wanted.seq - 1)), None)
    return record is not None and (record.seq, record.hash) == wanted


_CUT_OFF: Final = "if daskpki rotate-ca --emergency --old-key-lost was cut off here, run it again"
_FORGED: Final = "someone who can write to the store added it without the CA's key: find out who, and remove it"
