"""The commands that talk to a service, here or elsewhere."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from app.cli.display import check_success, follow_job, following
from app.cli.terminal import console, fail, make_directory, print_table
from app.client import DEFAULT_URL, APIError, Client
from app.formats import BY_SPELLING
from app.schemas.jobs import Job

ARCHIVE_SUFFIXES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".npz"}

Url = Annotated[str, typer.Option(envvar="GANVIL_URL", help="Where the service answers.")]
Key = Annotated[str | None, typer.Option(envvar="GANVIL_API_KEY", help="An API key, if the service asks for one.")]


def connect(url: str, key: str | None) -> Client:
    """A client of the service at `url`, which may leave out the http://."""
    return Client(url if "://" in url else f"http://{url}", key)


def train(
    dataset: Annotated[str, typer.Argument(help="An archive of images to upload, or the name or id of a data set.")],
    *,
    model: Annotated[str | None, typer.Option(help="The model's name; the data set's, if left out.")] = None,
    preset: Annotated[str | None, typer.Option(help="Where the config starts from; auto, if left out.")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="Train on so many examples,")] = None,
    epochs: Annotated[float | None, typer.Option(help="or pass over the data so many times,")] = None,
    seconds: Annotated[float | None, typer.Option(help="or train for so long.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides every random number of the run.")] = None,
    initial: Annotated[str | None, typer.Option(help="Begin with this model: digits, digits:3, a job's id ...")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Submit a training job and follow it live. Ctrl-C stops following, not the job."""
    budget = {
        name: n for name, n in (("examples", examples), ("epochs", epochs), ("seconds", seconds)) if n is not None
    }
    with connect(url, key) as client:
        data = find_dataset(client, dataset)
        job = client.submit(data, model=model, preset=preset, budget=budget or None, seed=seed, initial=initial)
        watch(client, job)


def follow(
    job: Annotated[str, typer.Argument(help="A job's id; the newest one's, if left out.")] = "latest",
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Follow a job live, also one that has ended. Ctrl-C stops following, not the job."""
    with connect(url, key) as client:
        watch(client, client.job(job))


def cancel(job: Annotated[str, typer.Argument(help="A job's id.")], url: Url = DEFAULT_URL, key: Key = None) -> None:
    """End a job; what it has made so far stays."""
    with connect(url, key) as client:
        console.print(f"Job {job} is to end: it was {client.cancel(job).status}.", highlight=False)


def watch(client: Client, job: Job) -> None:
    """Show a job until it has ended."""
    console.print(f"Job {job.id}", highlight=False)
    if job.preset_reason is not None:
        preset = f"Preset {job.chosen_preset}: {job.preset_reason}"
        console.print(preset, markup=False, highlight=False, soft_wrap=True)
    with following("job", f"ganvil follow {job.id}"):
        job = follow_job(client, job, console)
    check_success("job", job)
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
    report = dataset.report or {}
    for left_out in report.get("skipped", [])[:1]:
        which = f"such as {left_out['file']}: {left_out['reason']}"
        console.print(f"Files left out: {report['skipped_total']}, {which}", highlight=False)
    return dataset.id


def sample(
    model: Annotated[str, typer.Argument(help="A ref: digits, digits:3, digits@prod, or a job's id while it trains.")],
    *,
    seeds: Annotated[str, typer.Option(help="Which samples: seeds such as 7 or 0-15.")] = "0-15",
    label: Annotated[str | None, typer.Option("--class", help="The class to show, of a conditional model.")] = None,
    truncation: Annotated[float | None, typer.Option(help="Up to 1: the less, the more typical the samples.")] = None,
    scale: Annotated[int | None, typer.Option(min=1, help="Repeat each pixel so often across and down.")] = None,
    form: Annotated[str, typer.Option("--format", help="png, webp, jpg, avif or raw.")] = "png",
    output: Annotated[Path, typer.Option(help="The directory to write to.")] = Path("samples"),
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Download generated images, one file for each seed."""
    wanted = parse_seeds(seeds)
    extension = BY_SPELLING[form].extension if form in BY_SPELLING else form
    make_directory(output)
    with connect(url, key) as client:
        fetch = partial(client.sample, model, form=extension, label=label, truncation=truncation, scale=scale)
        for seed in track(wanted, "Sampling", console=console, transient=True, disable=not console.is_terminal):
            (output / f"{seed}.{extension}").write_bytes(fetch(seed))
    console.print(f"{len(wanted)} images in {output}", highlight=False)


def parse_seeds(text: str) -> range:
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise typer.BadParameter("seeds are a number or a range, such as 7 or 0-15", param_hint="--seeds")
    seeds = range(int(first), int(last or first) + 1)
    if not seeds:
        raise typer.BadParameter("a range goes from its lowest seed to its highest", param_hint="--seeds")
    return seeds


def datasets(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the data sets."""
    with connect(url, key) as client:
        rows = [
            (
                d.name,
                d.id,
                d.status,
                f"{d.examples:,}" if d.examples else "",
                len(d.classes or []),
                d.error.message if d.error else "",
            )
            for d in client.datasets()
        ]
    print_table(("name", "id", "status", "examples", "classes", ""), rows)


def jobs(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the training jobs."""
    with connect(url, key) as client:
        rows = [
            (j.id, j.status, j.model, f"{j.progress.examples_seen:,}", percent(j), f"{j.created_at:%F %T}")
            for j in client.jobs()
        ]
    print_table(("id", "status", "model", "examples seen", "done", "created"), rows)


def models(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the models, every version of each."""
    with connect(url, key) as client:
        rows = [
            (v.ref, f"{v.examples_seen:,}", v.sha256[:12], f"{v.created_at:%F %T}")
            for m in client.models()
            for v in m.versions
        ]
    print_table(("ref", "examples seen", "sha256", "created"), rows)


def percent(job: Job) -> str:
    return "" if job.progress.percent is None else f"{job.progress.percent:.0f}%"


COMMANDS = (train, follow, cancel, sample, datasets, jobs, models)
