"""What a secret and a payload must look like: the limits of Secret Manager's reference, each a check that raises.

https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime

from google_crc32c import value as crc32c

from tests.emulator.messages import Pb
from tests.emulator.names import Parent
from tests.emulator.status import invalid

PAYLOAD_LIMIT = 64 * 1024
ANNOTATIONS_LIMIT = 16 * 1024
CENTURY = 3_153_600_000

_SECRET_ID = re.compile(r"[a-zA-Z0-9_-]{1,255}")
_ALIAS = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,62}")
_ANNOTATION_KEY = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?")
_TOPIC = re.compile(r"projects/[^/]+/topics/[^/]+")
_KMS_KEY = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")


def check_secret_id(secret_id: str) -> None:
    """1 to 255 letters, digits, `_` and `-`."""
    if not _SECRET_ID.fullmatch(secret_id):
        raise invalid(
            f"The provided Secret ID [{secret_id}] does not match the expected format [[a-zA-Z_0-9\\-]+]"
            " with at most 255 characters."
        )


def check_secret(secret: Pb, parent: Parent) -> None:
    """Replication, labels, annotations and keys, at creation and after an update."""
    _check_replication(secret, parent)
    _check_labels(secret.labels)
    _check_annotations(secret.annotations)
    _check_encryption(secret, parent)


def _check_replication(secret: Pb, parent: Parent) -> None:
    chosen = secret.replication.WhichOneof("replication")
    if parent.location and secret.HasField("replication"):
        raise invalid("Replication must not be set for a regional secret.")
    if not parent.location and not chosen:
        raise invalid("Field [secret.replication] is required.")
    if chosen == "user_managed" and not secret.replication.user_managed.replicas:
        raise invalid("Field [secret.replication.user_managed.replicas] must not be empty.")


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > 64:
        raise invalid(f"Secret has {len(labels)} labels, more than the maximum of 64.")
    for key, value in labels.items():
        if not key or not _is_label(key) or unicodedata.category(key[0]) not in ("Ll", "Lo"):
            raise invalid(f"Label key [{key}] must match [\\p{{Ll}}\\p{{Lo}}][\\p{{Ll}}\\p{{Lo}}\\p{{N}}_-]{{0,62}}.")
        if not _is_label(value):
            raise invalid(f"Label value [{value}] must match [\\p{{Ll}}\\p{{Lo}}\\p{{N}}_-]{{0,63}}.")


def _is_label(text: str) -> bool:
    if len(text) > 63 or len(text.encode()) > 128:
        return False
    return all(char in "_-" or unicodedata.category(char) in ("Ll", "Lo", "Nd", "Nl", "No") for char in text)


def _check_annotations(annotations: Mapping[str, str]) -> None:
    for key in annotations:
        if not _ANNOTATION_KEY.fullmatch(key):
            raise invalid(f"Annotation key [{key}] must be 1 to 63 of [a-zA-Z0-9._-], alphanumeric at both ends.")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size >= ANNOTATIONS_LIMIT:
        raise invalid(f"Annotations take {size} bytes, and must be less than 16KiB.")


def check_aliases(aliases: Mapping[str, int], newest: int) -> None:
    """At most 50, well formed, each on a version that exists."""
    if len(aliases) > 50:
        raise invalid(f"Secret has {len(aliases)} version aliases, more than the maximum of 50.")
    for alias, number in aliases.items():
        if not _ALIAS.fullmatch(alias) or alias in ("latest", "NEW"):
            raise invalid(f"Version alias [{alias}] is not valid.")
        if not 1 <= number <= newest:
            raise invalid(f"Version alias [{alias}] refers to version [{number}], which does not exist.")


def check_schedule(secret: Pb, now: datetime) -> None:
    """Expiry, topics and rotation, where a request sets them: what lay ahead then may be past by now."""
    if secret.WhichOneof("expiration") == "expire_time" and secret.expire_time.ToSeconds() <= now.timestamp():
        raise invalid("Field [secret.expire_time] must be in the future.")
    if len(secret.topics) > 10:
        raise invalid(f"Secret has {len(secret.topics)} topics, more than the maximum of 10.")
    for topic in secret.topics:
        if not _TOPIC.fullmatch(topic.name):
            raise invalid(f"Topic [{topic.name}] does not match the expected format [projects/*/topics/*].")
    if secret.HasField("rotation"):
        _check_rotation(secret, now)


def _check_rotation(secret: Pb, now: datetime) -> None:
    rotation = secret.rotation
    if not secret.topics:
        raise invalid("Field [secret.topics] must be set to configure rotation.")
    if rotation.HasField("rotation_period"):
        if not rotation.HasField("next_rotation_time"):
            raise invalid("Field [next_rotation_time] must be set if [rotation_period] is set.")
        if not 3600 <= rotation.rotation_period.seconds <= CENTURY:
            raise invalid("Field [rotation_period] must be at least 3600s and at most 3153600000s.")
    ahead = rotation.next_rotation_time.ToSeconds() - now.timestamp() + 1
    if rotation.HasField("next_rotation_time") and not 300 <= ahead <= CENTURY:
        raise invalid("Field [next_rotation_time] must be at least 300s in the future.")


def _check_encryption(secret: Pb, parent: Parent) -> None:
    keys = [secret.customer_managed_encryption] if secret.HasField("customer_managed_encryption") else []
    if keys and not parent.location:
        raise invalid("Field [secret.customer_managed_encryption] is for regional secrets only.")
    if secret.replication.automatic.HasField("customer_managed_encryption"):
        keys.append(secret.replication.automatic.customer_managed_encryption)
    replicas = secret.replication.user_managed.replicas
    keys += [r.customer_managed_encryption for r in replicas if r.HasField("customer_managed_encryption")]
    for key in keys:
        if not _KMS_KEY.fullmatch(key.kms_key_name):
            raise invalid(f"KMS key [{key.kms_key_name}] is not the name of a Cloud KMS CryptoKey.")


def check_payload(payload: Pb) -> int:
    """Size and checksum of a new version's payload; the checksum to store."""
    if not payload.data:
        raise invalid("Secret Payload cannot be empty.")
    if len(payload.data) > PAYLOAD_LIMIT:
        raise invalid(f"The secret payload is {len(payload.data)} bytes, over the limit of {PAYLOAD_LIMIT} bytes.")
    checksum = int(crc32c(payload.data))
    if payload.HasField("data_crc32c") and payload.data_crc32c != checksum:
        raise invalid(f"The payload's checksum is {checksum}, but data_crc32c says {payload.data_crc32c}.")
    return checksum
