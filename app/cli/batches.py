"""`ganvil batch ...` and `ganvil batches`: many samples, made in the background."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from app.batches.containers import CONTAINERS
from app.cli.display import check_success, clock, follow_batch, following
from app.cli.remote import Key, Url, connect
from app.cli.terminal import console, fail, print_table
from app.client import DEFAULT_URL, Client, ConnectionFailed
from app.schemas.batches import Batch

group = typer.Typer(no_args_is_help=True, help="Make many samples in the background, and download them.")

BatchId = Annotated[str, typer.Argument(help="A batch's id.")]
AnyBatch = Annotated[str, typer.Argument(help="A batch's id; the newest one's, if left out.")]


@group.command()
def create(
    model: Annotated[str, typer.Argument(help="A ref: digits, digits:3, digits@prod, or a job's id.")],
    *,
    seeds: Annotated[str | None, typer.Option(help="Which samples: seeds such as 0-49999 or 0-9,20,")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="or so many, from seed 0 on.")] = None,
    label: Annotated[str | None, typer.Option("--class", help="The class of all, of a conditional model.")] = None,
    truncation: Annotated[float | None, typer.Option(help="Up to 1: the less, the more typical the samples.")] = None,
    form: Annotated[str | None, typer.Option("--format", help="png, webp, jpg or avif; not for npz.")] = None,
    container: Annotated[str | None, typer.Option(help="tar, zip, npz or parquet; tar, if left out.")] = None,
    shard_size: Annotated[int | None, typer.Option(min=1, help="Samples in each file of it.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Have a batch made and follow it live. Ctrl-C stops following, not the batch."""
    if seeds is None and count is not None:
        seeds = f"0-{count - 1}"
    elif seeds is None or count is not None:
        raise typer.BadParameter("give one of --seeds and --count", param_hint="--seeds")
    with connect(url, key) as client:
        batch = client.create_batch(
            model,
            seeds,
            label=label,
            truncation=truncation,
            form=form,
            container=container,
            shard_size=shard_size,
        )
        watch(client, batch)


@group.command()
def follow(batch: AnyBatch = "latest", url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Follow a batch live, also one that has ended. Ctrl-C stops following, not the batch."""
    with connect(url, key) as client:
        watch(client, client.batch(batch))


@group.command()
def show(batch: AnyBatch = "latest", url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Say what a batch is and how far."""
    with connect(url, key) as client:
        found = client.batch(batch)
    print_table(("id", found.id), [(name, value) for name, value in described(found).items() if value is not None])


@group.command()
def cancel(batch: BatchId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """End a batch; what was made of it is deleted."""
    with connect(url, key) as client:
        now = client.cancel_batch(batch)
    console.print(f"Batch {now.id} is {'cancelled' if now.status == 'cancelled' else 'to end'}.", highlight=False)


@group.command()
def delete(batch: BatchId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Delete a batch and its files, whatever its status is."""
    with connect(url, key) as client:
        client.delete_batch(batch)
    console.print(f"Batch {batch} is deleted.", highlight=False)


@group.command()
def download(
    batch: AnyBatch = "latest",
    *,
    shard: Annotated[int | None, typer.Option(min=0, help="Only this one of its files, from 0 on.")] = None,
    output: Annotated[Path, typer.Option(help="The file to write, or the directory to write it to.")] = Path(),
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Download a batch as one file. What was broken off goes on when it is asked for again."""
    with connect(url, key) as client:
        found = client.batch(batch)
        target = output / file_name(found, shard) if output.is_dir() else output
        which = "" if shard is None else f" --shard {shard}"
        again = f"What has come is kept. To go on: ganvil batch download {found.id}{which} --output {shlex.quote(str(target))}"
        try:
            with console.status(f"Downloading {target.name}"):
                client.download_batch(found.id, target, shard=shard)
        except OSError as error:
            fail(f"{target} cannot be written: {error.strerror}.")
        except ConnectionFailed as error:
            fail(str(error), again)
        except KeyboardInterrupt:
            fail("Broken off.", again)
    console.print(f"{target}: {target.stat().st_size:,} bytes", markup=False, highlight=False, soft_wrap=True)


def batches(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the batches."""
    with connect(url, key) as client:
        rows = [
            (b.id, b.status, b.model, f"{b.progress.total:,}", percent(b), b.container, f"{b.created_at:%F %T}")
            for b in client.batches()
        ]
    print_table(("id", "status", "model", "samples", "done", "container", "created"), rows)


def watch(client: Client, batch: Batch) -> None:
    """Show a batch until it has ended."""
    console.print(f"Batch {batch.id}", highlight=False)
    with following("batch", f"ganvil batch follow {batch.id}"):
        batch = follow_batch(client, batch.id, console)
    check_success("batch", batch)
    console.print(f"{archive(batch)}: ganvil batch download {batch.id}", highlight=False, soft_wrap=True)


def described(batch: Batch) -> dict[str, str | float | None]:
    """What `show` says, line by line; what is not known has no value."""
    done, eta = batch.progress, batch.progress.eta_seconds
    running = batch.finished_at is None
    return {
        "status": f"{batch.status}, to be cancelled" if running and batch.desired == "cancel" else batch.status,
        "error": batch.error.message if batch.error else None,
        "model": batch.model,
        "seeds": batch.seeds,
        "class": batch.class_,
        "truncation": batch.truncation,
        "format": batch.format,
        "container": batch.container,
        "shards": f"{batch.shards:,} of {batch.shard_size:,} samples",
        "done": f"{done.done:,} of {done.total:,}, {percent(batch)}",
        "left": clock(eta) if running and eta is not None else None,
        "archive": archive(batch),
        "sha256": batch.archive.sha256 if batch.archive else None,
        "created": f"{batch.created_at:%F %T}",
        "expires": f"{batch.expires_at:%F %T}" if batch.expires_at else None,
    }


def archive(batch: Batch) -> str | None:
    """Its name and size, once there is one."""
    return f"{file_name(batch, None)}, {batch.archive.size:,} bytes" if batch.archive else None


def file_name(batch: Batch, shard: int | None) -> str:
    """As the service names the archive, or a shard."""
    container = CONTAINERS[batch.container]
    if shard is None:
        return f"{batch.id}.{container.archive_extension}"
    return f"{batch.id}-{shard:05d}.{container.extension}"


def percent(batch: Batch) -> str:
    return f"{batch.progress.percent:.0f}%"
