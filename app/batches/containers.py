"""What the samples of a batch come in. A container is one entry in `CONTAINERS`, and one writer in `worker.batch.writers`."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

ContainerName = Literal["tar", "zip", "npz", "parquet"]


@dataclass(frozen=True)
class Container:
    """`joins`: the shards come together in one file of the same kind; else the archive is a tar of them."""

    name: ContainerName
    media_type: str
    joins: bool
    encodes: bool = True  # each sample in a format; else the pixels
    package: str | None = None  # which is not installed everywhere

    @property
    def extension(self) -> str:
        return self.name

    @property
    def archive_extension(self) -> str:
        return self.name if self.joins else "tar"

    @property
    def archive_media_type(self) -> str:
        return self.media_type if self.joins else CONTAINERS["tar"].media_type

    def is_installed(self) -> bool:
        """Whether this machine can write it."""
        return self.package is None or find_spec(self.package) is not None


CONTAINERS: dict[str, Container] = {
    entry.name: entry
    for entry in (
        Container("tar", "application/x-tar", joins=True),
        Container("zip", "application/zip", joins=True),
        Container("npz", "application/x-npz", joins=False, encodes=False),
        Container("parquet", "application/vnd.apache.parquet", joins=False, package="pyarrow"),
    )
}
assert set(CONTAINERS) == set(get_args(ContainerName))
