"""How samples become a shard, one writer for each container of `app.batches.containers`. Nothing of time or place goes in.

A writer takes samples as they are made and holds no more of them than the container wants together.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from app import tars
from app.bundles import Bundle
from worker.batch.samples import Made

ROWS_TOGETHER = 1024  # of a parquet file


@dataclass(frozen=True)
class Naming:
    """What a sample is called: by its seed, and where seeds come twice by its place in the batch too."""

    distinct: bool
    extension: str
    classes: Sequence[str]

    @cached_property
    def _kinds(self) -> list[str]:
        """What is told of a class; last of none, for the label -1."""
        named = enumerate(json.dumps(name, ensure_ascii=False) for name in self.classes)
        return [*(f', "class": {name}, "label": {label}' for label, name in named), ""]

    def stem(self, place: int, seed: int) -> str:
        return str(seed) if self.distinct else f"{place:07d}-{seed}"

    def about(self, seed: int, label: int) -> str:
        """The inside of a JSON object: what is told of a sample. (By hand: this is done a million times.)"""
        return f'"seed": {seed}{self._kinds[label]}'


@dataclass(frozen=True)
class Run:
    """Samples that were made together. `first` is the place of the first one in the batch."""

    first: int
    seeds: Sequence[int]
    made: Made


class Sink:
    """A file that is hashed and measured while it is written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """It is flushed when it is closed."""

    def close(self) -> None:
        self.closed = True
        self._file.close()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Writer(Protocol):
    """Writes one shard."""

    def __init__(self, sink: Sink, naming: Naming, index: int, samples: int) -> None: ...

    def add(self, run: Run) -> None: ...

    def close(self) -> int:
        """Write the end; how many bytes come before it."""
        ...


class TarWriter:
    """Two members a sample: its file, and what is told of it as JSON."""

    def __init__(self, sink: Sink, naming: Naming, index: int, samples: int) -> None:  # noqa: ARG002
        self._sink, self._naming = sink, naming

    def add(self, run: Run) -> None:
        members = []
        for place, (seed, label, data) in enumerate(zip(run.seeds, run.made.labels, run.made.files, strict=True)):
            stem = self._naming.stem(run.first + place, seed)
            about = f"{{{self._naming.about(seed, label)}}}".encode()
            members += [tars.member(f"{stem}.{self._naming.extension}", data), tars.member(f"{stem}.json", about)]
        self._sink.write(b"".join(members))

    def close(self) -> int:
        body = self._sink.size
        self._sink.write(tars.END)
        return body


class ZipWriter:
    """A member for each sample, and one with a line of JSON for each."""

    def __init__(self, sink: Sink, naming: Naming, index: int, samples: int) -> None:  # noqa: ARG002
        self._sink, self._naming, self._index = sink, naming, index
        self._bundle = Bundle()
        self._lines: list[str] = []

    def add(self, run: Run) -> None:
        for place, (seed, label, data) in enumerate(zip(run.seeds, run.made.labels, run.made.files, strict=True)):
            file = f"{self._naming.stem(run.first + place, seed)}.{self._naming.extension}"
            self._bundle.add(file, data)
            self._lines.append(f'{{"file": "{file}", {self._naming.about(seed, label)}}}')
        self._sink.write(self._bundle.drain())

    def close(self) -> int:
        self._bundle.add(f"samples-{self._index:05d}.jsonl", "".join(f"{line}\n" for line in self._lines).encode())
        self._sink.write(self._bundle.drain())
        body = self._sink.size
        self._sink.write(self._bundle.close())
        return body


class NpzWriter:
    """The pixels, seeds and classes as arrays."""

    def __init__(self, sink: Sink, naming: Naming, index: int, samples: int) -> None:  # noqa: ARG002
        self._sink, self._samples = sink, samples
        self._bundle = Bundle()
        self._open = ExitStack()
        self._append: Any = None
        self._numbers: dict[str, list[int]] = {"seeds": [], "classes": []}

    def add(self, run: Run) -> None:
        if self._append is None:
            shape = (self._samples, *run.made.images.shape[1:])
            self._append = self._open.enter_context(self._bundle.array("images", shape, np.uint8))
        self._append(run.made.images)
        self._numbers["seeds"] += run.seeds
        self._numbers["classes"] += run.made.labels
        self._sink.write(self._bundle.drain())

    def close(self) -> int:
        self._open.close()
        for name, numbers in self._numbers.items():
            with self._bundle.array(name, (self._samples,), np.int64) as append:
                append(np.array(numbers, np.int64))
        self._sink.write(self._bundle.close())
        return self._sink.size


class ParquetWriter:
    """A row for each sample; `image` is what the field's loaders take for one."""

    def __init__(self, sink: Sink, naming: Naming, index: int, samples: int) -> None:  # noqa: ARG002
        import pyarrow as pa
        from pyarrow import parquet

        text, number = pa.string(), pa.int64()
        image = pa.struct({"bytes": pa.binary(), "path": text})
        self._schema = pa.schema({"image": image, "seed": number, "label": number, "class": text})
        self._sink, self._naming = sink, naming
        # The files are compressed already, and no two are alike.
        self._writer = parquet.ParquetWriter(sink, self._schema, compression="none", use_dictionary=False)
        self._rows: list[dict[str, Any]] = []

    def add(self, run: Run) -> None:
        for place, (seed, label, data) in enumerate(zip(run.seeds, run.made.labels, run.made.files, strict=True)):
            path = f"{self._naming.stem(run.first + place, seed)}.{self._naming.extension}"
            kind = None if label < 0 else label
            name = None if label < 0 else self._naming.classes[label]
            self._rows.append({"image": {"bytes": data, "path": path}, "seed": seed, "label": kind, "class": name})
        if len(self._rows) >= ROWS_TOGETHER:
            self._flush()

    def close(self) -> int:
        self._flush()
        self._writer.close()
        return self._sink.size

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows = []


WRITERS: dict[str, type[Writer]] = {"tar": TarWriter, "zip": ZipWriter, "npz": NpzWriter, "parquet": ParquetWriter}
