"""The API: `python -m app [--processes N]`. Where it listens, and all else, is a setting."""

import argparse
import sys

import uvicorn
from pydantic import ValidationError

from app.http.auth import SHORT_KEY, OpenToNetwork, can_be_guessed, check_bind
from app.http.connections import PatientProtocol
from app.http.listening import serve
from app.settings import explain, get_settings

SHUTDOWN_SECONDS = 5  # for answers that are under way; streams of events end at once


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Serve the HTTP API.")
    parser.add_argument("--processes", type=int, default=1, help="how many processes answer requests")
    processes = parser.parse_args().processes
    try:
        settings = get_settings()
        check_bind(settings.host, settings.api_keys)
    except ValidationError as error:
        raise SystemExit(explain(error)) from error
    except OpenToNetwork as error:
        raise SystemExit(str(error)) from error
    if can_be_guessed(settings.api_keys):
        advice = f"A key of fewer than {SHORT_KEY} characters can be guessed: `ganvil key` makes one that cannot."
        print(advice, file=sys.stderr)  # noqa: T201 - a program's stderr
    run = serve if processes > 1 and sys.platform == "linux" else uvicorn.run
    run(
        "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=processes,
        http=PatientProtocol,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


if __name__ == "__main__":
    main()
