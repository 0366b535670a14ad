"""Runs `gcloud`, and `daskpki` itself, as child processes.

`gcloud` uses its own login and configuration. It is found by PATH, never run through a shell, and never prompts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from daskpki.deploy.iam import NO_FILES, Command
from daskpki.errors import AccessDeniedError, DaskpkiError, NotFoundError, UnavailableError, UsageError

Run = Callable[[Command, Mapping[str, str]], str]
"""Runs a command with these files in its working directory; returns its standard output, or raises DaskpkiError."""

_CONSTRAINT: Final = re.compile(r"constraints/([a-zA-Z]+\.[a-zA-Z0-9]+)")
_WAYS_OUT: Final = {
    "compute.vmExternalIpAccess": "--private gives no VM an external address",
    "compute.trustedImageProjects": "the policy has to allow the project cos-cloud, which publishes the VMs' image",
    "compute.restrictSharedVpcSubnetworks": "--subnet names a subnet that the policy allows",
    "compute.restrictSharedVpcHostProjects": "--network names a network of a host project that the policy allows",
    "compute.restrictNonConfidentialComputing": "only confidential VMs are allowed, which are not deployed here; "
    "export cloud-init and make the VMs yourself",
    "iam.disableServiceAccountCreation": "--scheduler-service-account and --worker-service-account name existing ones",
    "iam.allowedPolicyMemberDomains": "the policy has to allow the service accounts as members",
    "gcp.resourceLocations": "--zone names a zone that the policy allows",
    "gcp.restrictServiceUsage": "the policy has to allow the services in the plan",
}
"""Hints by the name of a constraint (cloud.google.com/resource-manager/docs/organization-policy)."""

_QUIET: Final = {
    "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    "CLOUDSDK_CORE_SHOULD_PROMPT_TO_ENABLE_API": "false",
    "CLOUDSDK_CORE_SURVEY_DISABLE_PROMPTS": "1",
}


class ServiceDisabledError(AccessDeniedError):
    """The API that a command calls is switched off in the project."""


class NotSettledError(UnavailableError):
    """A resource that the command names does not exist, or the called service does not know it yet."""


def runner(environ: Mapping[str, str] = os.environ) -> Run:
    """Return a function that runs commands on this machine with that environment."""

    def run(command: Command, files: Mapping[str, str] = NO_FILES) -> str:
        program = (sys.executable, "-m", *command) if command[0] == "daskpki" else command  # this installation
        with tempfile.TemporaryDirectory(prefix="daskpki-deploy-") as directory:
            for name, content in files.items():
                (Path(directory) / name).write_text(content)
            try:
                done = subprocess.run(
                    program, cwd=directory, env={**environ, **_QUIET}, capture_output=True, text=True, check=False
                )
            except FileNotFoundError:
                raise UsageError(
                    f"{program[0]} is not installed",
                    hint="install the Google Cloud CLI, or --export the plan and run it elsewhere",
                ) from None
        if done.returncode:
            raise error_of(program, done.stderr)
        return done.stdout

    return run


def error_of(command: Command, stderr: str) -> DaskpkiError:  # noqa: PLR0911 - one for each meaning
    """Turn a failed command's output into an error. The text is Google's and contains no secret."""
    words = " ".join(stderr.split())
    what = f"`{' '.join(command[:4])} ...` failed: {_reason(stderr)}"
    if found := _CONSTRAINT.search(words):
        hint = _WAYS_OUT.get(found[1], "ask who administers the organisation's policies")
        return AccessDeniedError(f"the organisation's policy {found[0]} forbids it: {what}", hint=hint)
    if "SERVICE_DISABLED" in words or "accessNotConfigured" in words:
        return ServiceDisabledError(what, hint="the plan switches it on, which takes effect after a few minutes")
    if "do not currently have an active account" in words or "gcloud auth login" in words:
        return AccessDeniedError(what, hint="gcloud auth login")
    if "PERMISSION_DENIED" in words or "does not have permission" in words or "Required '" in words:
        return AccessDeniedError(what, hint="docs/deploy: the roles that deploying needs")
    if "does not exist" in words or "not ready" in words:
        return NotSettledError(what, hint="try again in a minute")
    if "NOT_FOUND" in words or "not found" in words:
        return NotFoundError(what)
    return DaskpkiError(what)


def _reason(stderr: str) -> str:
    """The first error line and the next one, which has the details; without an error line, the last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    first = next((at for at, line in enumerate(lines) if line.lower().startswith("error:")), len(lines) - 1)
    return " ".join(lines[first : first + 2]) or "no reason given"


def read_json(run: Run, command: Command) -> Any:
    """Parse the JSON that a command prints. If the API is off there can be no resources: an empty list."""
    try:
        text = run((*command, "--format=json"), NO_FILES)
    except ServiceDisabledError:
        return []
    return json.loads(text or "[]")
