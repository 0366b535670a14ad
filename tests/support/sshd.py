"""OpenSSH's server on loopback for the user who runs the tests, with keys that exist for one test."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.ports import free_port

_CONFIGURATION = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
"""


@contextmanager
def sshd(directory: Path) -> Iterator[dict[str, Any]]:
    """Run it until the block ends; yields what `SSHCluster(connect_options=...)` needs to get in."""
    directory.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    port = free_port()
    configuration = directory / "sshd_config"
    configuration.write_text(_CONFIGURATION.format(port=port, directory=directory))
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # the Debian package makes it where systemd starts it
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    assert program is not None
    command = [program, "-D", "-e", "-f", str(configuration)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "Server listening" not in (line := process.stderr.readline()):
            assert line, "sshd ended"
        try:
            yield {
                "port": port,
                "username": getpass.getuser(),
                "client_keys": [str(directory / "user")],
                "known_hosts": ([str(directory / "host.pub")], [], []),
            }
        finally:
            process.terminate()
