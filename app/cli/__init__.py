"""The `ganvil` command."""

import os
import re
import secrets
import sys
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import track

from app.cli.display import follow_job
from app.client import DEFAULT_URL, Client, ClientError, ConnectionFailed
from app.client.transport import APIError
from app.settings import Settings

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()

ARCHIVE_SUFFIXES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".npz"}

Url = Annotated[str, typer.Option(envvar="GANVIL_URL", help="Where the service answers.")]
Key = Annotated[str | None, typer.Option(envvar="GANVIL_API_KEY", help="An API key, if the service asks for one.")]


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
    message = str(error)
    parts = [f"{each.get('pointer')}: {each.get('detail')}" for each in error.errors if each["detail"] not in message]
    return [re.sub(r"GET /v1/(datasets|jobs|models)\b(?!/)", r"ganvil \1", line) for line in (message, *parts)]


def fail(*lines: str) -> NoReturn:
    print(*lines, sep="\n  ", file=sys.stderr)  # noqa: T201 - what a command is for
    raise SystemExit(1)


def connect(url: str, key: str | None) -> Client:
    """A client of the service at `url`, which may leave out the http://."""
    return Client(url if "://" in url else f"http://{url}", key)


def make_directory(path: Path) -> None:
    """Creates it, or ends the command when nothing can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        fail(f"{path} is a file; give a directory.")
    except OSError as error:
        fail(f"The directory {path} cannot be made: {error.strerror}.")
    if not os.access(path, os.W_OK | os.X_OK):
        fail(f"The directory {path} cannot be written to.")


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
    from app.http.auth import (  # these bring the web framework in, which other commands do without
        OpenToNetwork,
        check_bind,
    )
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
        run_up(settings, api_processes=api_processes)
    except ValidationError as error:
        fail("These settings cannot be used:", *(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    except (OpenToNetwork, UpError, DataDirectoryHeld, RedisMissing, ChildFailed) as error:
        fail(str(error))


@cli.command()
def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards, until Ctrl-C.")] = False,
    output: Annotated[Path, typer.Option(help="Where the pictures, the report and the data go.")] = Path("ganvil-demo"),
    budget_seconds: Annotated[float | None, typer.Option(min=1, hidden=True, help="Train only so long.")] = None,
) -> None:
    """From handwritten digits to generated ones: start the service, train on it, fetch pictures."""
    from app.cli.demo import DemoFailed
    from app.cli.demo import demo as run_demo

    make_directory(output)
    try:
        run_demo(output, console, budget_seconds=budget_seconds, keep=keep)
    except DemoFailed as error:
        fail(str(error))


@cli.command()
def train(
    dataset: Annotated[str, typer.Argument(help="An archive of images to upload, or the name or id of a data set.")],
    *,
    model: Annotated[str | None, typer.Option(help="The model's name; the data set's, if left out.")] = None,
    preset: Annotated[str | None, typer.Option(help="Where the config starts from.")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="Train on so many examples,")] = None,
    epochs: Annotated[float | None, typer.Option(help="or pass over the data so many times,")] = None,
    seconds: Annotated[float | None, typer.Option(help="or train for so long.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides every random number of the run.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Submit a training job and follow it live. Ctrl-C stops following, not the job."""
    budget = {
        name: n for name, n in (("examples", examples), ("epochs", epochs), ("seconds", seconds)) if n is not None
    }
    with connect(url, key) as client:
        job = client.submit(find_dataset(client, dataset), model=model, preset=preset, budget=budget or None, seed=seed)
        console.print(f"Job {job.id}", highlight=False)
        try:
            job = follow_job(client, job, console)
        except KeyboardInterrupt:
            fail(f"No longer following. The job goes on: ganvil jobs lists it, {client.url}/v1/jobs/{job.id} shows it.")
        except ConnectionFailed as error:
            fail(str(error), f"If it was stopped, job {job.id} is saved and goes on with the next ganvil up.")
        if job.status != "succeeded":
            fail(f"The job {job.status}: {job.error.message}" if job.error else f"The job is {job.status}.")
        console.print(f"Model {job.model}: ganvil sample {job.model}", highlight=False)


def find_dataset(client: Client, text: str) -> str:
    """What `train` was given as a ref: a file is uploaded first."""
    path = Path(text)
    if path.is_file():
        return upload(client, path)
    if not path.exists() and (os.sep in text or path.suffix.lower() in ARCHIVE_SUFFIXES):
        fail(f"There is no such file: {path}")
    if path.is_dir():
        try:
            client.dataset(text)
        except APIError:
            fail(f"{path} is a folder. Zip the folder first, then: ganvil train {path.resolve().name}.zip")
    return text


def upload(client: Client, path: Path) -> str:
    with console.status(f"Uploading and preparing {path.name}"):
        dataset = client.wait_until_prepared(client.upload(path).id)
    console.print(f"Dataset {dataset.name}: {dataset.examples:,} examples", highlight=False)
    return dataset.id


@cli.command()
def sample(
    model: Annotated[str, typer.Argument(help="A ref: digits, digits:3, digits@prod, or a job's id while it trains.")],
    *,
    seeds: Annotated[str, typer.Option(help="Which samples: seeds such as 7 or 0-15.")] = "0-15",
    label: Annotated[str | None, typer.Option("--class", help="The class to show, of a conditional model.")] = None,
    form: Annotated[str, typer.Option("--format", help="png, jpg or webp.")] = "png",
    output: Annotated[Path, typer.Option(help="The directory to write to.")] = Path("samples"),
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Download generated images, one file for each seed."""
    wanted = parse_seeds(seeds)
    make_directory(output)
    with connect(url, key) as client:
        for seed in track(wanted, "Sampling", console=console, transient=True, disable=not console.is_terminal):
            (output / f"{seed}.{form}").write_bytes(client.sample(model, seed, form=form, label=label))
    console.print(f"{len(wanted)} images in {output}", highlight=False)


def parse_seeds(text: str) -> range:
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise typer.BadParameter("seeds are a number or a range, such as 7 or 0-15", param_hint="--seeds")
    seeds = range(int(first), int(last or first) + 1)
    if not seeds:
        raise typer.BadParameter("a range goes from its lowest seed to its highest", param_hint="--seeds")
    return seeds


@cli.command()
def datasets(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the data sets."""
    with connect(url, key) as client:
        rows = [(d.name, d.id, d.status, d.examples or "", len(d.classes or [])) for d in client.datasets()]
    print_table(("name", "id", "status", "examples", "classes"), rows)


@cli.command()
def jobs(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the training jobs."""
    with connect(url, key) as client:
        rows = [
            (j.id, j.status, j.model, f"{j.progress.examples_seen:,}", f"{j.created_at:%F %T}") for j in client.jobs()
        ]
    print_table(("id", "status", "model", "examples seen", "created"), rows)


@cli.command()
def models(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the models, every version of each."""
    with connect(url, key) as client:
        rows = [
            (v.ref, f"{v.examples_seen:,}", v.sha256[:12], f"{v.created_at:%F %T}")
            for m in client.models()
            for v in m.versions
        ]
    print_table(("ref", "examples seen", "sha256", "created"), rows)


def print_table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Aligned and never cut, however narrow the terminal is: what stands there is there to be copied."""
    lines = [columns, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@cli.command()
def key() -> None:
    """Make an API key: put it into GANVIL_API_KEYS of the service, and send it as `Authorization: Bearer`."""
    typer.echo(secrets.token_urlsafe(32))


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(package_version("ganvil"))
