"""Where Dask reads the wheel's configuration file, and where it does not: in real environments (docs/adr/0014)."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from daskpki.credentials.dask_config import explain_unread
from daskpki.credentials.login import logout
from daskpki.credentials.sources import Environment as Here
from daskpki.store.local.store import LocalStore
from tests.support.desktop import Desktop
from tests.support.environments import BASE, DEBIAN, LIBRARIES, Environment, build_wheel, make_venv
from tests.support.paths import ROOT

LOADER = "daskpki.loader.security_loader"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """A virtual environment with the wheel."""
    made = make_venv(tmp_path_factory.mktemp("installed"))
    made.pip_install("--ignore-installed", str(wheel))
    return made


@pytest.fixture(scope="module")
def found(installed: Environment) -> Any:
    """What daskpki sees of Dask's configuration there."""
    return installed.look()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The same without daskpki: the control."""
    return make_venv(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def of_user(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """The test environment's own Python with the wheel in a user's directory."""
    place = str(tmp_path_factory.mktemp("user"))
    made = Environment(BASE, {"PYTHONUSERBASE": place, "PIP_BREAK_SYSTEM_PACKAGES": "1"})
    made.pip_install("--user", "--ignore-installed", str(wheel))
    return made._replace(variables={"PYTHONUSERBASE": place})


def _is_read(found: Any) -> None:
    assert found["loader"] == LOADER
    assert found["asks"]
    assert found["shipped"] == f"{found['prefix']}/etc/dask/daskpki.yaml"


def _is_not_read(environment: Environment, why: str) -> None:
    found = environment.look()
    assert (found["loader"], found["shipped"], found["asks"]) == (None, None, False)
    assert why in found["why"], found


def test_in_a_virtual_environment_it_is_read(installed: Environment, found: Any) -> None:
    _is_read(found)
    assert found["from"].startswith(str(installed.python.parents[1]))


def test_in_an_editable_installation_it_is_read_and_uninstalling_removes_it(tmp_path: Path) -> None:
    made = make_venv(tmp_path / "venv")
    made.pip_install("--no-build-isolation", "--ignore-installed", "--editable", str(ROOT))
    found = made.look()
    _is_read(found)
    assert found["from"].startswith(str(ROOT))
    made.pip("uninstall", "--yes", "daskpki")
    assert not (tmp_path / "venv/etc/dask/daskpki.yaml").exists()
    plain = "import dask.config; print(dask.config.get('distributed.client.security-loader', None))"
    assert made.run("-c", plain).stdout == "None\n"


def test_in_an_environment_of_uv_it_is_read(tmp_path: Path, wheel: Path) -> None:
    uv: list[str | Path] = [Path(sys.executable).with_name("uv"), "--offline", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, tmp_path / "venv"], check=True, timeout=60)
    made = Environment(tmp_path / "venv/bin/python", {"PYTHONPATH": LIBRARIES})
    install = ("pip", "install", "--no-deps", "--link-mode", "copy", "--python", made.python, wheel)
    subprocess.run([*uv, *install], check=True, timeout=60, env={**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache")})
    _is_read(made.look())


def test_in_a_python_with_a_prefix_of_its_own_it_is_read(tmp_path: Path, wheel: Path) -> None:
    """As conda's: pip puts the file below this Python's own prefix, where Dask looks. Here below a root of the test."""
    debians = {"DEB_PYTHON_INSTALL_LAYOUT": "deb_system"}  # Debian's own Python would put it below /usr/local
    made = Environment(BASE, {"PIP_BREAK_SYSTEM_PACKAGES": "1", **debians})
    made.pip_install("--root", str(tmp_path), "--ignore-installed", str(wheel))
    shipped = tmp_path / str(BASE.parents[1]).lstrip("/") / "etc/dask/daskpki.yaml"
    assert shipped.exists()
    paths = Environment(BASE, {"PYTHONPATH": LIBRARIES}).run("-c", "import dask.config; print(*dask.config.paths)")
    assert f"{BASE.parents[1]}/etc/dask" in paths.stdout.split()


def test_installed_for_a_user_it_is_not_read(of_user: Environment) -> None:
    assert Path(of_user.variables["PYTHONUSERBASE"], "etc/dask/daskpki.yaml").exists()
    _is_not_read(of_user._replace(variables=of_user.variables | {"PYTHONPATH": LIBRARIES}), "installed with --user")


def test_installed_to_a_target_it_is_not_read(tmp_path: Path, wheel: Path) -> None:
    made = make_venv(tmp_path / "venv")
    made.pip_install("--target", str(tmp_path / "target"), str(wheel))
    _is_not_read(made._replace(variables={"PYTHONPATH": str(tmp_path / "target")}), "it came by --target")


def test_in_copied_site_packages_it_is_not_read(tmp_path: Path, installed: Environment) -> None:
    made = make_venv(tmp_path / "venv")
    (source,) = installed.python.parents[1].glob("lib/python3*/site-packages")
    (target,) = made.python.parents[1].glob("lib/python3*/site-packages")
    for package in source.glob("daskpki*"):
        shutil.copytree(package, target / package.name)
    _is_not_read(made, "a copy of site-packages")


def test_outside_of_an_environment_with_system_packages_it_is_not_read(tmp_path: Path, of_user: Environment) -> None:
    """The wheel in the outer Python's own place, which is a directory of these tests; the environment sees it."""
    made = make_venv(tmp_path / "venv", "--system-site-packages", python=BASE)
    _is_not_read(made._replace(variables=of_user.variables), "daskpki lies in ")
    why = explain_unread(str(tmp_path / "venv"), str(BASE.parents[1]), BASE.parents[1] / "lib/site-packages")
    assert "outside of this virtual environment, which has --system-site-packages" in why


def test_for_debians_own_python_it_is_not_read(tmp_path: Path, wheel: Path) -> None:
    made = Environment(DEBIAN, {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore"})
    made.pip_install("--root", str(tmp_path), "--ignore-installed", str(wheel))
    (packages,) = tmp_path.glob("usr/local/lib/python3*/dist-packages")
    assert (tmp_path / "usr/local/etc/dask/daskpki.yaml").exists()
    paths = Environment(DEBIAN, {"PYTHONPATH": LIBRARIES}).run("-c", "import dask.config; print(*dask.config.paths)")
    assert "/usr/etc/dask" in paths.stdout.split()
    assert "/usr/local/etc/dask" not in paths.stdout.split()
    place = Path("/") / packages.relative_to(tmp_path)
    assert "pip puts packages for Debian's own Python into /usr/local" in explain_unread("/usr", "/usr", place)


def test_an_environment_for_commands_alone_is_recognised(tmp_path: Path, installed: Environment, found: Any) -> None:
    assert found["tool"] is None
    made = installed.copy(tmp_path / "venv")
    for tool, receipt in (("pipx", "pipx_metadata.json"), ("uv", "uv-receipt.toml")):
        file = tmp_path / "venv" / receipt
        file.write_text("{}")
        assert made.look()["tool"] == tool
        file.unlink()


@pytest.mark.usefixtures("founded")
def test_login_says_where_client_asks_daskpki(
    tmp_path: Path, installed: Environment, store: LocalStore, here: Here, session: Desktop
) -> None:
    made = installed.copy(tmp_path / "venv")
    variables = {name: here.environ[name] for name in ("DASKPKI_KEY_FILE", "DASKPKI_HOME")}
    variables |= {"DBUS_SESSION_BUS_ADDRESS": session.environ["DBUS_SESSION_BUS_ADDRESS"], "HOME": str(tmp_path)}

    def login(*options: str, **more: str) -> str:
        words = ("-m", "daskpki", "--store", store.url, "login", "alice", *options)
        return made._replace(variables=made.variables | variables | more).run(*words).stderr

    assert [line.partition(" ")[0] for line in login().splitlines()] == ["next:"], "nothing has to be said of Dask"
    assert f"nothing was written to {tmp_path}/.config/dask: Dask reads" in login("--user-config")
    overruled = login(DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER="my.loader")
    assert "DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER sets another security-loader, which wins" in overruled
    (tmp_path / "venv/pipx_metadata.json").write_text("{}")
    assert "separate environment (pipx): install daskpki where Client runs" in login()
    (tmp_path / "venv/pipx_metadata.json").unlink()
    (tmp_path / "venv/etc/dask/daskpki.yaml").unlink()  # as where Dask does not read it
    assert "plain Client(...) does not ask daskpki here." in login()
    assert not (tmp_path / ".config/dask").exists()
    told = login("--user-config")
    assert f"{tmp_path}/.config/dask/daskpki.yaml lets every Python environment of this home directory ask" in told
    assert made.look(HOME=str(tmp_path))["loader"] == LOADER
    logout(here, here.contexts.all())


def _write_loader(path: Path, loader: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"distributed: {{client: {{security_loader: {loader}}}}}\n")
    return str(path)


def _in_the_user_directory(tmp_path: Path) -> tuple[str, dict[str, str]]:
    return _write_loader(tmp_path / "home/.config/dask/distributed.yaml", "my.loader"), {"HOME": str(tmp_path / "home")}


def _in_dask_config(tmp_path: Path) -> tuple[str, dict[str, str]]:
    path = _write_loader(tmp_path / "own/any.yaml", "null")  # none at all overrules as well
    return path, {"DASK_CONFIG": str(tmp_path / "own")}


def _by_a_variable(_tmp_path: Path) -> tuple[str, dict[str, str]]:
    return "DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER", {"DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER": "my.loader"}


@pytest.mark.parametrize("place", [_in_the_user_directory, _in_dask_config, _by_a_variable])
def test_what_overrules_it_is_named(
    installed: Environment, tmp_path: Path, place: Callable[[Path], tuple[str, dict[str, str]]]
) -> None:
    named, variables = place(tmp_path)
    found = installed.look(**variables)
    assert (found["asks"], found["decided"]) == (False, named)
    assert found["loader"] != LOADER


def test_another_package_overrules_it(tmp_path: Path, installed: Environment) -> None:
    made = installed.copy(tmp_path / "venv")
    named = _write_loader(tmp_path / "venv/etc/dask/gateway.yaml", "other.loader")
    found = made.look()
    assert (found["asks"], found["decided"], found["loader"]) == (False, named, "other.loader")


def test_an_administrators_directory_comes_before_it(installed: Environment, tmp_path: Path) -> None:
    """DASK_ROOT_CONFIG takes the place of /etc/dask, which comes before the wheel's, and hides no other directory."""
    _write_loader(tmp_path / "root/a.yaml", "my.loader")
    assert installed.look(DASK_ROOT_CONFIG=str(tmp_path / "root"))["loader"] == LOADER


PLAIN = """
import sys
from distributed import Client
with Client(sys.argv[1], timeout=30):
    print(*sys.modules)
"""

ADDED = """
import importlib, sys, time
from dask import config
from distributed.client import _maybe_call_security_loader
for _ in range(7):
    for name in [name for name in sys.modules if name.partition(".")[0] == "daskpki"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    before = time.process_time()
    config._load_config_file(SHIPPED)
    assert _maybe_call_security_loader("tcp://127.0.0.1:8786") is None
    print(time.process_time() - before)
"""


def test_a_plain_client_loads_a_handful_of_small_modules(installed: Environment, bare: Environment) -> None:
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:  # type: ignore[no-untyped-call] # distributed's
        loaded = [set(made.run("-c", PLAIN, cluster.scheduler_address).stdout.split()) for made in (installed, bare)]
    assert loaded[0] - loaded[1] == {"daskpki", "daskpki.errors", "daskpki.loader"}


def test_a_plain_client_pays_less_than_five_milliseconds(installed: Environment, bare: Environment, found: Any) -> None:
    """A file to parse at `import distributed`, and the loader to import at `Client("tcp://...")`.

    Whole runs differ by more than that from one to the next: `scripts/bench plain` compares those.
    """
    program = ADDED.replace("SHIPPED", repr(found["shipped"]))
    without = program.replace("config._load_config_file", "str")
    pays, control = (
        [float(line) for line in made.run("-c", text).stdout.splitlines()]
        for made, text in ((installed, program), (bare, without))
    )
    assert len(pays) == len(control) == 7
    assert statistics.median(pays) - statistics.median(control) < 0.005


def test_it_stands_in_no_other_environment_of_the_home_directory(bare: Environment, found: Any) -> None:
    """In one without daskpki, a loader that cannot be imported would end every Client."""
    assert found["asks"]
    program = """
from distributed.client import _maybe_call_security_loader
print(_maybe_call_security_loader("tcp://127.0.0.1:8786"))
"""
    assert bare.run("-c", program).stdout == "None\n"
    assert bare.run("-c", "import daskpki", check=False).returncode == 1
