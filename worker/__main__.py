"""A worker process: `python -m worker [--queues train,io]`. All else is a setting, GANVIL_TRAIN_SLOTS above all.

It is `celery -A worker.tasks worker` with the options that this service needs: threads, because tasks only wait for children and
must learn of a shutdown, and none of what lets Celery's workers talk among themselves.
"""

import argparse
import warnings

from celery.exceptions import SecurityWarning
from pydantic import ValidationError

from app.settings import explain, get_settings
from worker.tasks import celery

# Beside the training slots: for preparing, for probing, for a batch, and to answer bells that find every slot busy.
SPARE_THREADS = 4


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Train jobs and prepare data sets.")
    parser.add_argument(
        "--queues",
        default="train,io",
        help="train (with it come the probes of dry runs), io (with it come batches) or both (the default)",
    )
    queues = parser.parse_args().queues
    try:
        threads = get_settings().train_slots + SPARE_THREADS
    except ValidationError as error:
        raise SystemExit(explain(error)) from error
    # It warns root of pickled messages, and ours are JSON.
    warnings.simplefilter("ignore", SecurityWarning)
    alone = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    celery.start(
        [
            "--quiet",
            "worker",
            "--pool=threads",
            f"--concurrency={threads}",
            f"--queues={queues}",
            "--loglevel=WARNING",
            *alone,
        ]
    )


if __name__ == "__main__":
    main()
