"""What is said of a batch while it is made, where this test is the worker."""

import signal
from pathlib import Path

from app import batches
from app.main import create_app
from app.settings import Settings
from app.tables import Batch
from tests.app.batches.rows import claimed, make_batch, record
from tests.app.cli.commands import ganvil, started
from tests.serving import serving


def test_progress_and_the_time_left_are_shown(tmp_path: Path) -> None:
    """`follow` and `show` tell both while a batch runs; Ctrl-C ends the following alone, and a failure its reason."""
    app = create_app(Settings(data_dir=tmp_path / "data"))
    with serving(app) as client:
        with app.state.database.writing() as session:
            batch = make_batch(session, "0-39999")
            claimed(session, batch)
            record(session, batch, 0)
        url = str(client.base_url)
        following = [started("batch", "follow", url=url) for _ in range(2)]
        for process in following:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            assert lines == [f"Batch {batch.id}\n", "running  4 of 40,000  100/s  6:40 left\n"]
        shown = ganvil("batch", "show", url=url).stdout
        assert "\nleft        6:40\n" in shown
        following[0].send_signal(signal.SIGINT)
        out, error = following[0].communicate(timeout=20)
        assert (out, following[0].returncode) == ("", 1)
        assert error == f"No longer following. The batch goes on; to see it again: ganvil batch follow {batch.id}\n"
        with app.state.database.writing() as session:
            assert session.get(Batch, batch.id).status == "running"
            batches.fail(session, batch.id, batch.fence, "out_of_memory", "It needs more memory.")
        out, error = following[1].communicate(timeout=20)
        assert (out, error) == ("failed  4 of 40,000  100/s\n", "The batch failed: It needs more memory.\n")
        assert "\nerror       It needs more memory.\n" in ganvil("batch", "show", url=url).stdout
