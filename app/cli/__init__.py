"""The `ganvil` command."""

import re
import secrets
from http import HTTPStatus
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from app.cli import batches, remote
from app.cli.terminal import console, fail, make_directory
from app.client import APIError, ClientError
from app.settings import Settings, unknown_variables
from app.settings import explain as settings_explained

POINTER = re.compile(r"^(?:(?:body|query|path|header) )?#/(?:\w+/)*([A-Za-z_]+)(?:/[0-9]+)*:")

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Runs the command; errors that a person can do something about end in one clear message."""
    try:
        cli()
    except APIError as error:
        fail(*explain(error))
    except ClientError as error:
        fail(str(error))


def explain(error: APIError) -> list[str]:
    """What the service says, and each offending part that this does not name yet, in the words of this command."""
    if error.status == HTTPStatus.UNAUTHORIZED:
        return ["The service asks for an API key: give --key, or set GANVIL_API_KEY, to one that it knows."]
    message = POINTER.sub(option, str(error))
    parts = [
        POINTER.sub(option, f"{each.get('pointer')}: {each.get('detail')}")
        for each in error.errors
        if each["detail"] not in message
    ]
    return [in_commands(line) for line in (message, *parts)]


def option(pointer: re.Match[str]) -> str:
    """What this command calls the part of a request that a pointer leads to."""
    return f"{pointer[1].replace('_', '-')}:"


def in_commands(line: str) -> str:
    """What a person can do about it by this command, where the service names a request."""
    line = re.sub(r"GET /v1/(batches|datasets|jobs|models)\b(?!/)", r"ganvil \1", line)
    return re.sub(r"POST /v1/batches\b(?!/)", "ganvil batch create", line)


def print_version(asked: bool) -> None:
    if asked:
        typer.echo(package_version("ganvil"))
        raise typer.Exit


@cli.callback()
def ganvil(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train generative adversarial networks on your images, and fetch what they generate."""


@cli.command()
def up(
    *,
    host: Annotated[
        str | None, typer.Option(help="The address to listen on [127.0.0.1]; others need API keys.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on [8000]; 0 takes a free one.")] = None,
    data: Annotated[Path | None, typer.Option(help="The directory that holds everything [./ganvil-data].")] = None,
    train_workers: Annotated[int | None, typer.Option(min=1, help="How many jobs train at once [1].")] = None,
    api_processes: Annotated[int, typer.Option(min=1, help="How many processes answer requests.")] = 1,
) -> None:
    """Run the whole service on this machine until Ctrl-C."""
    # These bring the web framework in, which other commands do without.
    from app.http.auth import OpenToNetwork, check_bind, is_loopback
    from app.up.datalock import DataDirectoryHeld
    from app.up.processes import ChildFailed
    from app.up.redis_server import RedisMissing
    from app.up.tree import UpError
    from app.up.tree import up as run_up

    given = {"host": host, "port": port, "data_dir": data, "train_slots": train_workers}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        check_bind(settings.host, settings.api_keys)
        make_directory(settings.data_dir)
        for name in unknown_variables():
            console.print(f"There is no setting {name}; docs/settings.md lists all.", highlight=False)
        if not is_loopback(settings.host):
            others = f"It listens on {settings.host}: others who reach this machine and have a key can use it."
            console.print(others, markup=False, highlight=False, soft_wrap=True)
        run_up(settings, api_processes=api_processes)
    except ValidationError as error:
        fail(settings_explained(error))
    except (OpenToNetwork, UpError, DataDirectoryHeld, RedisMissing, ChildFailed) as error:
        fail(str(error))


@cli.command()
def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards, until Ctrl-C.")] = False,
    output: Annotated[Path, typer.Option(help="Where the pictures, the report and the data go.")] = Path("ganvil-demo"),
    budget_seconds: Annotated[float | None, typer.Option(min=1, hidden=True, help="Train only so long.")] = None,
) -> None:
    """From handwritten digits to generated ones: start the service with default settings, train on it, fetch pictures."""
    from app.cli.demo import DemoFailed
    from app.cli.demo import demo as run_demo

    make_directory(output)
    try:
        run_demo(output, console, budget_seconds=budget_seconds, keep=keep)
    except DemoFailed as error:
        fail(str(error))


for command in (*remote.COMMANDS, batches.batches):
    cli.command()(command)
cli.add_typer(batches.group, name="batch")


@cli.command()
def key() -> None:
    """Make an API key: put it into GANVIL_API_KEYS of the service, and send it as `Authorization: Bearer`."""
    typer.echo(secrets.token_urlsafe(32))


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(package_version("ganvil"))
