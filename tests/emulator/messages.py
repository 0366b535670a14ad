"""The real protobuf messages of google.cloud.secretmanager_v1, without proto-plus around them.

proto-plus publishes no types for the raw messages, so they are `Any` to the type checker.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from google.cloud.secretmanager_v1.types import resources, service
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.protobuf import empty_pb2

Pb: TypeAlias = Any

Secret = resources.Secret.pb()
SecretVersion = resources.SecretVersion.pb()
ENABLED = int(resources.SecretVersion.State.ENABLED)
DISABLED = int(resources.SecretVersion.State.DISABLED)
DESTROYED = int(resources.SecretVersion.State.DESTROYED)
STATE_NAMES = {ENABLED: "ENABLED", DISABLED: "DISABLED", DESTROYED: "DESTROYED"}

Policy = policy_pb2.Policy
Binding = policy_pb2.Binding
TestIamPermissionsResponse = iam_policy_pb2.TestIamPermissionsResponse
AccessSecretVersionResponse = service.AccessSecretVersionResponse.pb()
ListSecretsResponse = service.ListSecretsResponse.pb()
ListSecretVersionsResponse = service.ListSecretVersionsResponse.pb()

# Each method's request and reply; a method that is absent here answers UNIMPLEMENTED.
METHODS: dict[str, tuple[Pb, Pb]] = {
    "ListSecrets": (service.ListSecretsRequest.pb(), ListSecretsResponse),
    "CreateSecret": (service.CreateSecretRequest.pb(), Secret),
    "GetSecret": (service.GetSecretRequest.pb(), Secret),
    "UpdateSecret": (service.UpdateSecretRequest.pb(), Secret),
    "DeleteSecret": (service.DeleteSecretRequest.pb(), empty_pb2.Empty),
    "AddSecretVersion": (service.AddSecretVersionRequest.pb(), SecretVersion),
    "ListSecretVersions": (service.ListSecretVersionsRequest.pb(), ListSecretVersionsResponse),
    "GetSecretVersion": (service.GetSecretVersionRequest.pb(), SecretVersion),
    "AccessSecretVersion": (service.AccessSecretVersionRequest.pb(), AccessSecretVersionResponse),
    "EnableSecretVersion": (service.EnableSecretVersionRequest.pb(), SecretVersion),
    "DisableSecretVersion": (service.DisableSecretVersionRequest.pb(), SecretVersion),
    "DestroySecretVersion": (service.DestroySecretVersionRequest.pb(), SecretVersion),
    "GetIamPolicy": (iam_policy_pb2.GetIamPolicyRequest, Policy),
    "SetIamPolicy": (iam_policy_pb2.SetIamPolicyRequest, Policy),
    "TestIamPermissions": (iam_policy_pb2.TestIamPermissionsRequest, TestIamPermissionsResponse),
}
