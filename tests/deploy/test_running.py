"""The edge: how a command is run, and what its failures mean."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from daskpki.deploy.gcloud import NotSettledError, ServiceDisabledError, error_of, read_json, runner
from daskpki.deploy.iam import NO_FILES
from daskpki.errors import AccessDeniedError, DaskpkiError, NotFoundError, UsageError

COMMAND = ("gcloud", "secrets", "list")


def test_files_are_there_while_the_command_runs_and_gone_after() -> None:
    program = (
        "import os; print(os.getcwd(), open('user-data.yaml').read(), os.environ['CLOUDSDK_CORE_DISABLE_PROMPTS'])"
    )
    place, content, quiet = runner({})((sys.executable, "-c", program), {"user-data.yaml": "#x"}).split()
    assert (content, quiet) == ("#x", "1")
    assert not Path(place).exists()


def test_without_gcloud_the_plan_can_still_be_exported() -> None:
    with pytest.raises(UsageError, match="gcloud is not installed") as refusal:
        runner({"PATH": "/nonexistent"})(COMMAND, NO_FILES)
    assert "--export" in str(refusal.value.hint)


def test_daskpki_is_this_installation() -> None:
    assert runner({**os.environ, "PATH": "/nonexistent"})(("daskpki", "--help"), NO_FILES).lstrip().startswith("Usage")


def test_where_an_api_is_off_nothing_is_there(tmp_path: Path) -> None:
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        "#!/bin/sh\necho 'ERROR: (gcloud.x) PERMISSION_DENIED: API [y] off. reason: SERVICE_DISABLED' >&2; exit 1\n"
    )
    gcloud.chmod(0o700)
    run = runner({"PATH": f"{tmp_path}:/bin:/usr/bin"})
    assert read_json(run, COMMAND) == []
    with pytest.raises(ServiceDisabledError):
        run(COMMAND, NO_FILES)


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("ERROR: (gcloud.a) PERMISSION_DENIED: Permission 'x' denied", AccessDeniedError),
        ("ERROR: (gcloud.a) You do not currently have an active account selected.", AccessDeniedError),
        ("ERROR: (gcloud.a)\n - Required 'compute.instances.create' permission for 'p'", AccessDeniedError),
        ("ERROR: (gcloud.a) INVALID_ARGUMENT: Service account x does not exist.", NotSettledError),
        ("ERROR: (gcloud.a) NOT_FOUND: Secret [x]", NotFoundError),
        ("ERROR: (gcloud.a) Status code: 404. Secret [x] not found.", NotFoundError),
        ("ERROR: (gcloud.a) Quota exceeded", DaskpkiError),
        ("", DaskpkiError),
    ],
)
def test_what_gcloud_says_becomes_an_error_with_an_exit_code(stderr: str, kind: type[DaskpkiError]) -> None:
    error = error_of(COMMAND, f"WARNING: something else\n{stderr}\n")
    assert type(error) is kind
    assert stderr.partition("\n")[0] in str(error)


@pytest.mark.parametrize(
    ("constraint", "way_out"),
    [
        ("constraints/compute.vmExternalIpAccess", "--private"),
        ("constraints/iam.disableServiceAccountCreation", "--scheduler-service-account"),
        ("constraints/compute.somethingNew", "administers the organisation's policies"),
    ],
)
def test_an_organisations_policy_is_named_from_the_refusal(constraint: str, way_out: str) -> None:
    stderr = (
        "ERROR: (gcloud.compute.instances.create) Could not fetch resource:\n - Constraint "
        f"{constraint} violated for project project-one. Add instance x to the constraint to use it.\n"
    )
    error = error_of(COMMAND, stderr)
    assert isinstance(error, AccessDeniedError)
    assert str(error).startswith(f"the organisation's policy {constraint} forbids it")
    assert way_out in str(error.hint)
