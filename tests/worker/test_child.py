import json
import os
import resource
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers import wait_until
from tests.worker.helpers import lines_of, said, start
from worker.child import Lines, thread_environment

UNTIL_STOPPED = "say('started'); asked_to_stop(60) and say('stopped')"


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_child_learns_of_a_stop(tmp_path: Path) -> None:
    """A child that was asked to stop does so by itself, with status 0."""
    with start(tmp_path, UNTIL_STOPPED) as child:
        wait_until(lambda: said(tmp_path))
        assert child.status() is None
        child.stop()
        assert child.wait(10)
        assert (child.status(), said(tmp_path)) == (0, ["started", "stopped"])


def test_children_do_not_hold_each_others_pipes(tmp_path: Path) -> None:
    """Children that are started later do not keep an earlier one's pipe open."""
    folders = [tmp_path / str(number) for number in range(4)]
    with ExitStack() as stack:
        children = [stack.enter_context(start(folder, UNTIL_STOPPED)) for folder in folders]
        for folder in folders:
            wait_until(lambda folder=folder: said(folder))
        for child in children:
            child.stop()
            assert child.wait(10)


def test_child_stops_when_its_parent_is_killed(tmp_path: Path) -> None:
    """The pipe closes with the parent, however the parent dies."""
    inner = tmp_path / "inner"
    parent = f"""
        import sys; sys.path.insert(0, {str(Path.cwd())!r})
        from pathlib import Path
        from tests.worker.helpers import start
        child = start(Path({str(inner)!r}), {UNTIL_STOPPED!r})
        say("spawned", pid=child.pid)
        asked_to_stop(60)
    """
    with start(tmp_path / "outer", parent) as child:
        wait_until(lambda: inner.exists() and said(inner))
        pid = lines_of(tmp_path / "outer").read()[0]["data"]["pid"]
        child.kill()
        wait_until(lambda: said(inner) == ["started", "stopped"] and not is_alive(pid))


def test_kill_takes_what_the_child_started(tmp_path: Path) -> None:
    """A killed child takes its own children with it, and its status says how it ended."""
    script = """
        import subprocess
        say("spawned", pid=subprocess.Popen(["sleep", "60"]).pid)
        asked_to_stop(60)
    """
    with start(tmp_path, script) as child:
        wait_until(lambda: said(tmp_path))
        grandchild = lines_of(tmp_path).read()[0]["data"]["pid"]
        child.kill()
        assert child.wait(10)
        assert child.status() == -signal.SIGKILL
        wait_until(lambda: not is_alive(grandchild))


def test_child_lives_in_a_session_of_its_own(tmp_path: Path) -> None:
    """Ctrl-C in our terminal does not reach the child."""
    with start(tmp_path, "import os; say('started', session=os.getsid(0))") as child:
        assert child.wait(10)
    assert lines_of(tmp_path).read()[0]["data"]["session"] == child.pid != os.getsid(0)


def test_leaving_the_context_ends_the_child(tmp_path: Path) -> None:
    """A child never outlives the block that started it, and killing it afterwards harms nobody."""
    with start(tmp_path, "import time; say('started'); time.sleep(60)") as child:
        wait_until(lambda: said(tmp_path))
    assert not is_alive(child.pid)
    child.kill()
    child.stop()


def test_child_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and passwords of the service stay in the service; threads and GPUs are passed on."""
    monkeypatch.setenv("GANVIL_API_KEYS", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    script = "import os; say('environment', **os.environ)"
    with start(tmp_path, script, {"CUDA_VISIBLE_DEVICES": "1", **thread_environment(2)}) as child:
        assert child.wait(10)
    environment = lines_of(tmp_path).read()[0]["data"]
    assert "secret" not in environment.values()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["OMP_NUM_THREADS"]) == ("1", "2")
    assert environment["PATH"] == os.environ["PATH"]


def test_limits_hold_for_the_child_alone(tmp_path: Path) -> None:
    """Resource limits are set on the child from outside and leave this process as it was."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    script = """
        import resource
        while resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096: asked_to_stop(0.01)
        say("limited")
        (directory / "big").write_bytes(bytes(5000))
    """
    with start(tmp_path, script) as child:
        child.limit({resource.RLIMIT_FSIZE: 4096})
        assert child.wait(10)
        assert child.status() == 1
        assert "File too large" in child.log_tail()
    assert said(tmp_path) == ["limited"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before


def test_lines_come_once_and_whole(tmp_path: Path) -> None:
    """A line that is still being written is not read; each complete one is read once, in order."""
    lines = Lines(tmp_path / "events.jsonl")
    assert lines.read() == []
    with lines._path.open("a", encoding="utf-8") as file:
        for part, expected in (('{"n": 1}\n{"n"', [1]), (": 2", []), ("}\n", [2]), ('{"n": 3}\n{"n": 4}\n', [3, 4])):
            file.write(part)
            file.flush()
            assert [line["n"] for line in lines.read()] == expected
    assert json.loads(lines._path.read_text(encoding="utf-8").splitlines()[0]) == {"n": 1}


def test_torn_line_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that is not JSON is logged and costs nothing but itself."""
    (tmp_path / "events.jsonl").write_bytes(b'{"n": 1}\n{"n": "\xff\n\n{"n": 2}\n')
    assert [line["n"] for line in Lines(tmp_path / "events.jsonl").read()] == [1, 2]
    assert capsys.readouterr().out.count("lines.torn") == 2


def test_child_goes_first_when_memory_runs_out(tmp_path: Path) -> None:
    """The kernel is told to end a child rather than the API, the worker or Redis."""
    with start(tmp_path, UNTIL_STOPPED) as child:
        assert Path(f"/proc/{child.pid}/oom_score_adj").read_text() == "500\n"
