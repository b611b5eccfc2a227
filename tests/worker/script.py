"""A child process that runs DIRECTORY/script.py with `directory`, `say(kind, **data)` and `asked_to_stop(seconds)` at hand."""

import json
import os
import runpy
import select
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    directory, stop_fd = Path(sys.argv[1]), int(sys.argv[3])

    def say(kind: str, **data: Any) -> None:
        line = {"kind": kind, "examples_seen": 0, "elapsed_seconds": 0.0, "data": data}
        with (directory / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def asked_to_stop(seconds: float) -> bool:
        return bool(select.select([stop_fd], [], [], seconds)[0]) and os.read(stop_fd, 1) == b""

    at_hand = {"directory": directory, "say": say, "asked_to_stop": asked_to_stop}
    runpy.run_path(str(directory / "script.py"), init_globals=at_hand)


if __name__ == "__main__":
    main()
