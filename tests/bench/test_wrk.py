"""What wrk says, and what it is told to send."""

import pytest

from bench.serving import wrk
from tests.bench.server import answering

OUTPUT = """Running 3s test @ http://127.0.0.1:8000
  2 requests in 3.00s, 1.00KB read
RESULT {"requests": 120, "microseconds": 3000000, "bytes": 9, "p50": 1500, "p99": 20000, "refused": 30, "connect": 1, "read": 2, "write": 3, "timeout": 4}
"""


def test_a_run_is_read_from_the_line_that_our_script_prints() -> None:
    """Times come in milliseconds, the rate is that of right answers, and every broken socket counts."""
    load = wrk.parse(OUTPUT, client_seconds=0.5)
    assert (load.requests, load.seconds, load.p50_ms, load.p99_ms) == (120, 3.0, 1.5, 20.0)
    assert (load.refused, load.broken, load.per_second, load.client_seconds) == (30, 10, 30.0, 0.5)


def test_without_that_line_the_failure_is_told() -> None:
    """What wrk said stands in the error."""
    with pytest.raises(wrk.LoadFailed, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_a_missing_wrk_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Debian package is named."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(wrk.LoadFailed, match="apt-get install wrk"):
        wrk.check()


@pytest.mark.needs("wrk")
def test_every_request_has_a_seed_of_its_own() -> None:
    """A real wrk against a real server: seeds never repeat, bodies are as long as announced, and refusals are counted."""
    with answering() as server:
        requests = [wrk.post("/refused", '{"seed": {seed}}'), wrk.get("/samples/{seed}.png", If_None_Match='"x"')]
        load = wrk.run(f"http://127.0.0.1:{server.port}", requests, connections=2, seconds=1)
    asked = [path for path, _, _ in server.seen if path != "/refused"]
    assert len(set(asked)) == len(asked) > 0
    assert {tag for path, tag, _ in server.seen if path != "/refused"} == {'"x"'}
    bodies = [body for path, _, body in server.seen if path == "/refused"]
    assert len(set(bodies)) == len(bodies) > 0
    assert all(body.startswith('{"seed": 1') and body.endswith("}") for body in bodies)
    assert len(bodies) - 2 <= load.refused <= len(bodies)
    assert load.broken == 0
