"""Runs as root in network and mount namespaces of its own: the blog post's single VM, from nothing to a result.

Secret Manager answers by TLS at its real name, the metadata server at its real address, IAM is enforced. An operator
makes the CA and the grants, alice logs in to a real keyring, and the VM starts what `daskpki deploy` exports for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from daskpki.confidential import Confidential
from daskpki.pki.credential import parse_credential
from tests.emulator.certificates import web_certificate
from tests.emulator.metadata import MetadataServer
from tests.emulator.server import SecretManagerServer
from tests.support import docker_run
from tests.support.desktop import desktop
from tests.support.key_search import Canary, Finding

PROJECT = "project-one"
NODE = f"daskpki-lab-node@{PROJECT}.iam.gserviceaccount.com"
OPERATOR, ALICE = (f"{who}@{PROJECT}.iam.gserviceaccount.com" for who in ("operator", "alice"))
VM = "198.51.100.7"
METADATA = "169.254.169.254"
TRUSTED = "/var/lib/ca.pem"
DASKPKI = (sys.executable, "-m", "daskpki", f"--store=gsm://{PROJECT}", "--cluster=lab")
DEPLOY = (
    "deploy", "gcp", "--zone=europe-west1-b", "--machine-type=e2-highcpu-16", "--image=docker.io/example/dask:1.0",
    "--tag=dask-server", "--threads-per-worker=1", "--memory-per-worker=1", "--clients-from=203.0.113.0/24",
    "--secret=db-password=/run/secrets/db-password",
)  # fmt: skip
CORES = len(os.sched_getaffinity(0))
PASSWORD = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(4))
ASK = f"""
import hashlib, os
import daskpki
from dask.distributed import Client, fire_and_forget
from time import sleep

with Client("tls://{VM}:8786") as client:
    client.wait_for_workers({CORES}, timeout=60)
    print("result", client.submit(sum, [20, 22]).result(timeout=60))
    digest = lambda: hashlib.sha256(daskpki.secret("db-password")).hexdigest()
    print("password", client.submit(digest).result(timeout=60))
    about = lambda: (os.getuid(), bool(os.statvfs("/").f_flag & os.ST_RDONLY), open("/proc/1/cmdline").read())
    for uid, read_only, first in client.run(about).values():
        print("worker", uid, read_only, first)
    fire_and_forget(client.map(sleep, [1] * 200, pure=False))
    client.submit(sum, [1], priority=10).result(timeout=60)
"""


class Story:
    """The surroundings: servers, identities, and what came out of every program that ran."""

    def __init__(self, stack: ExitStack, work: Path) -> None:
        self.work = work
        self.said: dict[str, bytes] = {}
        web = web_certificate(work, "secretmanager.googleapis.com")
        shutil.copy(web.trusted, TRUSTED)
        self.server = stack.enter_context(SecretManagerServer(tls=web.context, rest_port=443, enforce_iam=True))
        self.identities = {
            who: stack.enter_context(MetadataServer(self.server.tokens, project=PROJECT, account=who)).environment
            for who in (OPERATOR, ALICE)
        }
        self.server.iam.grant(PROJECT, "roles/secretmanager.admin", f"serviceAccount:{OPERATOR}")
        self.session = stack.enter_context(desktop())

    def daskpki(self, who: str, *arguments: str) -> str:
        """What a person's command prints."""
        endpoint = {"DASKPKI_SECRET_MANAGER_ENDPOINT": f"grpc://{self.server.grpc_target}"}
        return self.run([*DASKPKI, *arguments], {**self.session.environ, **self.identities[who], **endpoint})

    def run(self, command: Sequence[str], environ: Mapping[str, str], log: Path | None = None) -> str:
        done = subprocess.run(command, env=dict(environ), capture_output=True, text=True, check=False)
        self.said[" ".join(command)] = (done.stdout + done.stderr).encode()
        assert done.returncode == 0, done.stderr + (log.read_text() if log else "")
        return done.stdout


def main() -> None:
    work = Path(sys.argv[1])
    lay_out(work)
    with ExitStack() as stack:
        story = Story(stack, work)
        found(story)
        user_data = export(story)
        metadata = MetadataServer(
            story.server.tokens,
            project=PROJECT,
            account=NODE,
            host=METADATA,
            port=80,
            attributes={"user-data": user_data},
        )
        stack.enter_context(metadata)
        canary = Canary({**dict(keys(story)), "db-password": Confidential(PASSWORD)})
        log = work / "vm.log"
        vm = stack.enter_context(booted(user_data, log))
        alice = {**story.session.environ, **story.identities[ALICE], "SSL_CERT_FILE": TRUSTED}
        answer = story.run([sys.executable, "-c", ASK], alice, log)
        check_computed(answer, vm)
        check_requests(story, metadata)
        check_no_key(story, canary, vm)
        os.kill(docker_run.pid_one(vm), signal.SIGTERM)  # as `docker stop`, in the middle of two hundred tasks
        assert vm.wait(20) == 0, log.read_text()


def lay_out(work: Path) -> None:
    """The addresses and names of a VM on Google Cloud, and a disk that holds nothing yet."""
    (work / "hosts").write_text("127.0.0.1 localhost secretmanager.googleapis.com\n")
    (work / "disk").mkdir()
    for command in (
        "ip link set lo up",
        f"ip address add {METADATA}/32 dev lo",
        f"ip address add {VM}/32 dev lo",
        f"mount --bind {work}/hosts /etc/hosts",
        f"mount --bind {work}/disk /var/lib",
    ):
        subprocess.run(command.split(), check=True)


def found(story: Story) -> None:
    """The operator's and alice's part: a CA, credentials, a grant for each, a login."""
    story.daskpki(OPERATOR, "--quiet", "init-ca", "--with=scheduler,worker,client/alice")
    (story.work / "password").write_bytes(PASSWORD)
    story.daskpki(OPERATOR, "--quiet", "secret", "set", "db-password", f"--file={story.work}/password")
    for whose, member in (("scheduler", NODE), ("worker", NODE), ("secret/db-password", NODE), ("client/alice", ALICE)):
        story.daskpki(OPERATOR, "grant", whose, "--to", f"serviceAccount:{member}")
    story.daskpki(ALICE, "login", "--name=alice", f"--scheduler=tls://{VM}:8786")


def export(story: Story) -> str:
    """The VM's user-data; the other forms of the same deployment are made for the search."""
    story.daskpki(OPERATOR, *DEPLOY, "--export", "script")
    story.daskpki(OPERATOR, *DEPLOY, "--export", "terraform", "--json")
    return story.daskpki(OPERATOR, *DEPLOY, "--export", "cloud-init")


def keys(story: Story) -> Iterator[tuple[str, Confidential]]:
    for name in story.server.secrets():
        if "_scheduler_" in name or "_worker_" in name or "_client_" in name:
            (payload,) = story.server.payloads(name)
            assert payload is not None
            key = parse_credential(Confidential(payload)).key
            assert key is not None
            yield name.rpartition("/")[2], key


@contextmanager
def booted(user_data: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The unit of the user-data, as systemd would start it, until the block ends."""
    (file,) = yaml.safe_load(user_data)["write_files"]
    lines = file["content"].replace("\\\n", " ").splitlines()
    (directory,) = (line for line in lines if line.startswith("ExecStartPre=/usr/bin/install "))
    subprocess.run(directory.partition("=")[2].split(), check=True)
    (start,) = (line for line in lines if line.startswith("ExecStart="))
    run = docker_run.parse_run(start.removeprefix("ExecStart=/usr/bin/docker run "))
    vm = docker_run.start(run, {"SSL_CERT_FILE": TRUSTED}, log)
    try:
        yield vm
    finally:
        vm.kill()
        vm.wait()


def check_computed(answer: str, vm: subprocess.Popen[bytes]) -> None:
    result, password, *workers = answer.splitlines()
    assert result == "result 42"
    assert password == f"password {hashlib.sha256(PASSWORD).hexdigest()}"
    assert len(workers) == CORES
    for line in workers:  # not root, a root that cannot be written, and PID 1 is the entrypoint's init
        assert line.startswith("worker 65532 True ")
        assert "daskpki.boot.init" in line
    status = Path(f"/proc/{docker_run.pid_one(vm)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["NSpid"].split()[-1] == "1"
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert fields["NoNewPrivs"] == "1"


def check_requests(story: Story, metadata: MetadataServer) -> None:
    """Five and one for the secret, each by the VM's own identity; alice's client reads the trust document only."""
    asked = [entry for entry in story.server.requests() if entry.transport == "rest"]
    assert {entry.method for entry in asked} == {"AccessSecretVersion"}
    by_node = [entry for entry in asked if entry.principal == f"serviceAccount:{NODE}"]
    by_alice = [entry for entry in asked if entry.principal == f"serviceAccount:{ALICE}"]
    assert len(by_node) + len(by_alice) == len(asked)
    assert len(by_node) + metadata.count() == 6
    assert {entry.secret_id for entry in by_alice} == {"daskpki_lab_trust"}


def check_no_key(story: Story, canary: Canary, vm: subprocess.Popen[bytes]) -> None:
    """Not in requests, metadata, command lines, environments, logs, on the disk; a planted one is found in each."""
    inside = Path(f"/proc/{docker_run.pid_one(vm)}/root")
    disk = [story.work / "disk", inside / "tmp", inside / "dev" / "shm", Path(story.session.environ["HOME"])]

    def search() -> list[Finding]:
        return [
            *canary.in_processes(),
            *canary.in_files(disk),
            *(finding for place, data in texts(story) for finding in canary.in_bytes(place, data)),
        ]

    assert not (found := search()), found
    key = story.server.payloads(f"projects/{PROJECT}/secrets/daskpki_lab_worker_worker")[0]
    assert key is not None
    private = parse_credential(Confidential(key)).key
    assert private is not None
    (story.work / "disk" / "daskpki" / "planted").write_bytes(private.reveal())
    story.said["planted text"] = json.dumps({"key": private.reveal().hex()}).encode()
    waiting = ["sh", "-c", "echo up; read line"]  # while it is still being executed, its environment reads as empty
    planted = {"PLANTED": private.reveal().hex()}
    with subprocess.Popen(waiting, env=planted, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        places = {finding.place.rpartition("/")[2] for finding in search()}
        holder.kill()
    assert {"environ", "planted", "planted text"} <= places, places


def texts(story: Story) -> Iterator[tuple[str, bytes]]:
    """What was said: by every command (the exports of `deploy` among them), by the VM, and to the servers over REST."""
    yield from story.said.items()
    yield "vm.log", (story.work / "vm.log").read_bytes()
    for entry in story.server.requests():
        if entry.transport == "rest":
            yield entry.path, f"{entry.path} {entry.headers}".encode() + entry.body


if __name__ == "__main__":
    main()
