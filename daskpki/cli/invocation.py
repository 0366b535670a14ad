"""One run of `daskpki`: its global options, and the store and CA that they name.

`hoist` moves global options to the front, so that they are accepted behind the subcommand, too, and no command has to
declare them. Commands in hints repeat the options that were given on the command line; those from the environment are
still set for the next command.

Plain option values are taken without pydantic, which typer 0.29 loads for every option that is not a flag: loading it
takes as long as all the rest of `daskpki issue` (docs/benchmarks.md). A value that needs a conversion is left to
typer, with its own messages. This relies on one private name of typer, `_runtime_param`; without it, only the time
changes.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from enum import StrEnum
from functools import cache, partial, wraps
from inspect import Parameter, signature
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, cast, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import CommandFunctionType

from daskpki.cli.output import Output, prompt
from daskpki.errors import DaskpkiError, NotFoundError, UsageError
from daskpki.identity import Role, default_name, parse_label, parse_role
from daskpki.settings import LocalUrl, StoreUrl, cluster_name, home, parse_store_url, store_url
from daskpki.store.local.key_slots import Unlocking

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.authority.ca_keys import CaKeys
    from daskpki.confidential import Confidential
    from daskpki.credentials.sources import Environment
    from daskpki.store.gsm.secrets import GsmOptions
    from daskpki.store.port import Store

WITH_VALUE: Final = ("--store", "--cluster", "--passphrase-file", "--key-file", "--ca-passphrase-file", "--ca-sha256")
FLAGS: Final = ("--json", "--quiet", "-q", "--verbose", "-v")
_JOINED: Final = tuple(f"{option}=" for option in WITH_VALUE)


YesOption = Annotated[bool, typer.Option("--yes", envvar="DASKPKI_YES", help="Do not ask whether to go on.")]


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move the options of `daskpki` itself to the front, as OPTION=VALUE; nothing behind `--` is touched."""
    front: list[str] = []
    rest: list[str] = []
    pending = iter(arguments)
    for argument in pending:
        if argument == "--":
            rest += [argument, *pending]
        elif argument == "-h":  # help shows only --help: a column for -h would cut long options in a narrow terminal
            rest.append("--help")
        elif argument in FLAGS or argument.startswith(_JOINED):
            front.append(argument)
        elif argument in WITH_VALUE:
            front += [f"{argument}={value}" for value in islice(pending, 1)] or [argument]
        else:
            rest.append(argument)
    return front + rest


KEYWORD: Final = Parameter.KEYWORD_ONLY


class PlainCommand(TyperCommand):
    """A command whose parameters take plain values as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, including the help option."""
        return _plain_first(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """A group of commands whose options take plain values as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters."""
        return _plain_first(super().get_params(ctx))


class Commands(typer.Typer):
    """A group of commands, each of which may take the invocation and groups of options; plain values are quick."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=PlainGroup, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Register a command; see `adapt` for its parameters."""
        register = super().command(name, cls=PlainCommand, **options)
        return lambda function: register(adapt(function))

    def callback(self, **options: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Register the function that takes the group's own options; as `command`."""
        register = super().callback(**options)
        return lambda function: register(adapt(function))


def adapt(function: CommandFunctionType) -> CommandFunctionType:
    """Replace `invocation` by typer's context, and a parameter that is a NamedTuple by options for its fields."""
    for name, parameter in signature(function).parameters.items():
        if name == "invocation":
            function = replace_parameter(function, name, [("ctx", typer.Context, Parameter.empty)], lambda ctx: ctx.obj)
        elif isinstance(parameter.default, tuple):
            group = type(parameter.default)
            hints = get_type_hints(group, include_extras=True)
            options = [(field, hint, getattr(parameter.default, field)) for field, hint in hints.items()]
            function = replace_parameter(function, name, options, group)
    return function


def replace_parameter(
    function: CommandFunctionType, name: str, options: Sequence[tuple[str, Any, Any]], make: Callable[..., Any]
) -> CommandFunctionType:
    """Let a command take options (name, annotation, default) for one parameter, whose value `make` makes of them."""
    given = signature(function, eval_str=True)
    parameters: list[Parameter] = []
    for parameter in given.parameters.values():
        if parameter.name == name:
            parameters += [Parameter(each, KEYWORD, annotation=kind, default=value) for each, kind, value in options]
        else:
            parameters.append(parameter.replace(kind=KEYWORD))  # one without a default may follow one with a default

    @wraps(function)
    def command(**values: Any) -> Any:
        made = make(**{option: values.pop(option) for option, _, _ in options})
        return function(**values, **{name: made})

    command.__signature__ = given.replace(parameters=parameters)  # type: ignore[attr-defined] # inspect reads it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return cast("CommandFunctionType", command)


def _plain_first(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""  # else typer's help shows <bool> behind a flag, as if it took a value
        parameter._runtime_param = parameter._runtime_param or _PlainFirst()  # noqa: SLF001 - see the top of this file
    return parameters


class _PlainFirst:
    """Stands in for typer's lazily built coercion of one parameter."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value itself if typer would return the same, else typer's own result."""
        annotation = param.type_descriptor.annotation
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if isinstance(value, str) and annotation in (str, Path):
            return annotation(value)
        if annotation is int and re.fullmatch("[0-9]{1,9}", str(value)):
            number = int(value)
            if number >= (param.min or 0) and (param.max is None or number <= param.max):
                return number
        if isinstance(annotation, type) and issubclass(annotation, StrEnum) and value in set(annotation):
            return annotation(value)
        param._runtime_param = None  # noqa: SLF001 - typer builds its own
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def parse_role_and_name(first: str, second: str | None = None, option: str | None = None) -> tuple[Role, str]:
    """Parse ROLE/NAME, or ROLE with a second word or `--name`; scheduler and worker default to their role.

    A role's word is never a name (`issue client worker`), and contradicting names are refused.
    """
    role_text, slash, inner = first.partition("/")
    role = parse_role(role_text)
    if second is not None and second.isdecimal():
        raise UsageError(f"{second!r} as a name looks like a number of {role.value}s", hint=f"--count {second}")
    given = {name for name in (inner if slash else None, second, option) if name is not None}
    if len(given) > 1:
        raise UsageError(
            f"the name is given as {' and as '.join(sorted(given))}", hint=f"{role.value}/NAME says it once"
        )
    return role, _name(given.pop(), role) if given else default_name(role)


def parse_client(*given: str | None) -> str | None:
    """A client's name, `alice` or `client/alice`, given once or more often; None if it is not given."""
    texts = [text for text in given if text is not None]
    named = {parse_role_and_name(text if "/" in text else f"{Role.CLIENT}/{text}") for text in texts}
    for role, name in named:
        if role is not Role.CLIENT:
            raise UsageError(f"{role.value}/{name} is not a client", hint=f"for example client/{name}")
    if len(named) > 1:
        raise UsageError(f"the name is given as {' and as '.join(texts)}", hint="say it once")
    return next((name for _, name in named), None)


def _name(text: str, role: Role) -> str:
    """The name; UsageError for a role's word, unless it is that role's default name."""
    if text in set(Role) and (text != role.value or role is Role.CLIENT):
        raise UsageError(f"{text!r} is a role, and a name is expected", hint=f"for example {role.value}/NAME")
    return parse_label(text, "name")


def read_passphrase(file: Path | None, subject: str, option: str, *, new: bool) -> Confidential:
    """The passphrase of `subject`: from the file of `option`, else from the terminal, twice when it is new."""
    if file is not None:
        from daskpki.store.local.key_slots import read_passphrase_file

        return read_passphrase_file(file, f"the file of {option}")
    return prompt(f"{'New passphrase' if new else 'Passphrase'} of {subject}: ", f"{option} FILE", confirm=new)


class CaPassphrase:
    """One passphrase for all the keys that a run opens and seals.

    A passphrase that has opened a key is right. One that seals a key first is asked for twice, since a typing error
    would lose that key.
    """

    def __init__(self, file: str | None) -> None:
        self._file = file
        self._known: Confidential | None = None

    def __call__(self, *, new: bool) -> Confidential:
        """The passphrase, asked for once."""
        if self._known is None:
            file = Path(self._file) if self._file else None
            self._known = read_passphrase(file, "the CA's key", "--ca-passphrase-file", new=new)
        return self._known


class GlobalOptions(NamedTuple):
    """The options of `daskpki` itself."""

    store: Annotated[
        str | None,
        typer.Option(
            envvar="DASKPKI_STORE",
            metavar="URL",
            help="local:, local:/path, gsm://PROJECT or gsm://PROJECT/LOCATION (default: local:).",
        ),
    ] = None
    cluster: Annotated[
        str | None, typer.Option(envvar="DASKPKI_CLUSTER", metavar="NAME", help='Cluster name (default: "default").')
    ] = None
    passphrase_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Passphrase that unlocks a local store (also DASKPKI_PASSPHRASE_FILE)."),
    ] = None
    key_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Key file that unlocks a local store (also DASKPKI_KEY_FILE)."),
    ] = None
    ca_passphrase_file: Annotated[
        str | None,
        typer.Option(envvar="DASKPKI_CA_PASSPHRASE_FILE", metavar="FILE", help="Passphrase of the CA's own key."),
    ] = None
    ca_sha256: Annotated[
        str | None,
        typer.Option(
            envvar="DASKPKI_CA_SHA256",
            metavar="HEX",
            help="Trust only the CA with this SHA-256, as init-ca printed it; deploy sets it on VMs, too.",
        ),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", envvar="DASKPKI_JSON", help="Print one JSON document.")] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", envvar="DASKPKI_QUIET", help="Print no hints and no progress.")
    ] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", envvar="DASKPKI_VERBOSE", help="Print errors with their traceback.")
    ] = False


class Invocation(NamedTuple):
    """One run of `daskpki`: its global options and the name of its command."""

    given: GlobalOptions
    output: Output
    command: str

    @property
    def cluster(self) -> str:
        """The cluster in use."""
        return cluster_name({}, self.given.cluster)

    @property
    def url(self) -> StoreUrl:
        """The URL of the store in use."""
        return store_url({}, self.given.store)

    @property
    def store_name(self) -> str:
        """The store's URL that identifies a login; the store is not opened, since it may not be readable from here."""
        from daskpki.store.opening import local_directory

        url = self.url
        return f"local:{local_directory(url, os.environ)}" if isinstance(url, LocalUrl) else str(url)

    def open_store(
        self, *, url: str | None = None, create: bool = False, placement: GsmOptions | None = None
    ) -> closing[Store]:
        """Open the store of `--store` or `url`, to be closed by `with`; with `create`, make a missing local one.

        `placement` has the options for a new cluster's secrets in Secret Manager.
        """
        from daskpki.store.opening import open_store

        parsed = parse_store_url(url) if url else self.url
        try:
            return closing(open_store(parsed, unlock=self.unlocking(), create=create, placement=placement))
        except NotFoundError as error:
            from daskpki.credentials.contexts import Contexts

            if not Contexts(home(os.environ)).names():
                raise
            hint = "--store names its place; your login needs none (daskpki whoami), and an operator can run this"
            raise NotFoundError(str(error), hint=hint) from None

    @contextmanager
    def authority(
        self,
        *,
        create: bool = False,
        placement: GsmOptions | None = None,
        seal: bool = False,
        reading: bool = False,
    ) -> Iterator[CertificateAuthority]:
        """The CA of `--cluster` in that store.

        A new CA's key is sealed by its own passphrase with `seal`, or if --ca-passphrase-file names the passphrase.
        With `reading`, a local store is shown as it is, without its key, and marked as unverified.
        """
        from daskpki.authority.ca import CertificateAuthority
        from daskpki.authority.ca_keys import KeyLocations

        with ExitStack() as opened:
            passphrase = CaPassphrase(self.given.ca_passphrase_file)
            store = opened.enter_context(self.open_store(create=create, placement=placement))
            if reading and store.url.startswith("local:"):
                self.output.hint("read without the store's key, so not verified: daskpki audit --verify does that")
            yield CertificateAuthority(
                store,
                self.cluster,
                command=f"daskpki {self.command}",
                ca_sha256=self.given.ca_sha256,
                reading=reading,
                places=KeyLocations(
                    seal=partial(passphrase, new=True) if seal or self.given.ca_passphrase_file else None,
                    unseal=partial(passphrase, new=False),
                    store=cache(lambda url: opened.enter_context(self.open_store(url=url, create=create)).secrets),
                    kms=cache(_kms),
                ),
            )

    def unlocking(self) -> Unlocking:
        """The ways to a local store's master key that this run has."""
        ways = Unlocking(
            key_file=Path(self.given.key_file) if self.given.key_file else None,
            passphrase_file=Path(self.given.passphrase_file) if self.given.passphrase_file else None,
            prompt=partial(read_passphrase, None, "the local store", "--key-file FILE or --passphrase-file"),
        )
        if ways.named or any(map(os.environ.get, ("DASKPKI_KEY_FILE", "DASKPKI_PASSPHRASE_FILE"))):
            return ways
        from daskpki.credentials.os_keyring import OSKeyring

        return ways._replace(keyring=OSKeyring())

    def environment(self) -> Environment:
        """The variables, clock, keyring and stores in which a person's credential is searched."""
        from daskpki.credentials.sources import this_process
        from daskpki.store.opening import open_store

        pin = {"DASKPKI_CA_SHA256": self.given.ca_sha256} if self.given.ca_sha256 else {}
        return this_process()._replace(
            environ=os.environ | pin, open_store=lambda url: open_store(url, unlock=self.unlocking())
        )


def _kms(uri: str) -> CaKeys:
    from daskpki.kms import kms_ca_keys

    return kms_ca_keys(uri, os.environ)


def given_options(hoisted: Sequence[str]) -> str:
    """The options to repeat at the front of hoisted arguments, quoted for a shell.

    Without a pin: the memory has the CA from now on, and the pinned one may just have been replaced, or be mistyped.
    """
    front = takewhile(lambda word: word in FLAGS or word.startswith(_JOINED), hoisted)
    return shlex.join(word for word in front if word not in FLAGS and not word.startswith("--ca-sha256="))


def with_options(text: str, options: str, commands: Iterable[str]) -> str:
    """Add these options to each daskpki and daskpki-entrypoint command in the text that has none yet.

    A command that names the cluster alone, as in an error that a Python program may show, gets all but `--cluster`.
    """
    if not options:
        return text
    named = "|".join(map(re.escape, commands))
    others = "".join(f"{shlex.quote(word)} " for word in shlex.split(options) if not word.startswith("--cluster="))
    ours = rf"\bdaskpki (?=(--cluster \S+ )?(?:{named})\b)"
    text = re.sub(ours, lambda found: found[0] + (others if found[1] else f"{options} "), text)
    shared = shlex.join(word for word in shlex.split(options) if word.startswith(("--store=", "--cluster=")))
    entry = r"\bdaskpki-entrypoint (?:scheduler|worker|node)\b(?! --(?:store|cluster))"
    return re.sub(entry, lambda found: f"{found[0]} {shared}", text) if shared else text


_MOST_COMPLETED: Final = 2_000


def complete_name(ctx: Any, incomplete: str) -> list[str]:
    """The names ROLE/NAME in the local store of this command line; none for a store in the cloud.

    Each key press starts a process, so completion calls no cloud, opens no keyring and asks nothing: it reads the
    records of the log, which are not encrypted.
    """
    from daskpki.store.opening import open_store

    given = ctx.find_root().params
    with suppress(DaskpkiError):
        url = store_url(os.environ, given.get("store"))
        if isinstance(url, LocalUrl):
            with closing(open_store(url)) as opened:
                log = opened.log(cluster_name(os.environ, given.get("cluster")))
                names = (entry.slug for entry in log.read_cached().certificates())
                return sorted(set(islice((name for name in names if name.startswith(incomplete)), _MOST_COMPLETED)))
    return []
