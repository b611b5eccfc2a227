"""A worker process for tests: claims jobs until none is left, and prints the id and fence of each on a line of its own.

    python tests/app/claimer.py DATABASE_URL DATA_DIR

It says `ready` first, and begins when it reads a line.
"""

import sys
from pathlib import Path

from app import jobs
from app.db import Database
from app.settings import Settings


def main(database_url: str, data_dir: str) -> None:
    database = Database(Settings(database_url=database_url, data_dir=Path(data_dir)))
    database.ping()
    say("ready")
    sys.stdin.readline()
    while True:
        with database.writing() as session:
            job = jobs.claim(session, "claimer")
        if job is None:
            return
        say(f"{job.id} {job.fence}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
