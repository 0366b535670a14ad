"""The blog post's single VM boots itself in a container-like sandbox and computes for alice (single_vm_story.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.docker_run import BIN, ROOT, Run, command_for
from tests.support.sandbox import AS_ROOT


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_the_blog_posts_vm_computes_for_alice(tmp_path: Path) -> None:
    sandbox = [*AS_ROOT, "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*sandbox, sys.executable, "-m", "tests.support.single_vm_story", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr


def test_a_checkout_that_the_containers_tmpfs_covers_is_there_all_the_same() -> None:
    run = Run("65532:65532", {f"/{BIN.parts[1]}": "mode=755"}, {}, {}, "image", ("--help",))
    done = subprocess.run([*AS_ROOT, *command_for(run, {})], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "daskpki-entrypoint" in done.stdout
