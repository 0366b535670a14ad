"""A secret volume of Kubernetes, which is exchanged in one step, and a start that reads its credential from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from daskpki.cluster.security import NodeSecurity
from daskpki.handover import VARIABLE, load_handover
from tests.support.boot_cloud import Recorder
from tests.support.material import Cluster


class Volume:
    """Each file is a link through `..data`, itself a link that is exchanged; `write` puts them into a new directory."""

    def __init__(self, cluster: Cluster, path: Path, names: Iterable[str], write: Callable[[Path], Path]) -> None:
        self.cluster = cluster
        self.path = path
        self._write = write
        self._version = 0
        path.mkdir(mode=0o700, parents=True)
        self.update()
        for name in names:
            (path / name).symlink_to(f"..data/{name}")

    def update(self) -> None:
        """What the cluster has now."""
        self._version += 1
        content = self._write(self.path / f"..version-{self._version}")
        (self.path / "..data_tmp").symlink_to(content.name)
        (self.path / "..data_tmp").rename(self.path / "..data")


class Started(Recorder):
    """In the place of os.execve: what the preload of the started program would make of the handover."""

    security: NodeSecurity

    def __call__(self, command: str, argv: list[str], environ: dict[str, str]) -> None:
        super().__call__(command, argv, environ)
        self.security = NodeSecurity(load_handover(environ[VARIABLE]))
