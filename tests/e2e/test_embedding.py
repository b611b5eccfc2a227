"""A page of another origin in a real Chromium, with pictures and events of a service that asks for keys."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from app import jobs
from app.client import Client
from tests.app.routes.gallery import gallery
from tests.browser import browser
from tests.factories import claimed, make_job

KEY = "a-key-with-32-characters-00000001"
PAGE = """<!doctype html><img id="plain" src="{picture}"><img id="readable" src="{picture}" crossorigin>
<script>
  window.kinds = [];
  const events = new EventSource("{events}");
  for (const kind of ["status", "metrics"]) events.addEventListener(kind, () => window.kinds.push(kind));
</script>"""
WIDTHS = (
    "() => ['plain', 'readable'].map(id => document.getElementById(id)).map(img => img.complete && img.naturalWidth)"
)

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(600)]


@contextmanager
def page_elsewhere(html: str) -> Iterator[str]:
    """The URL of a page on a server of its own. It lets in only what says that it may be embedded."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_page_of_another_origin_shows_pictures_and_follows_events(tmp_path: Path) -> None:
    """`<img>`, one whose pixels may be read, and EventSource work with signed addresses, and without them get nothing."""
    with gallery(tmp_path, api_keys=(KEY,)) as (app, http), Client(str(http.base_url), KEY) as client:
        with app.state.database.writing() as session:
            job = claimed(session, make_job(session))
            jobs.report(session, job.id, job.fence, [jobs.NewEvent("metrics", {"loss_g": 1.0}, 32, 1.0)])
            jobs.fail(session, job.id, job.fence, "diverged", "It diverged.")
        paths = ["/v1/models/cats:1/samples/7.png", f"/v1/jobs/{job.id}/events"]
        signed = PAGE.format(**dict(zip(("picture", "events"), (each.url for each in client.sign(paths)), strict=True)))
        unsigned = PAGE.format(picture=f"{client.url}{paths[0]}", events=f"{client.url}{paths[1]}")
        with browser(tmp_path) as context, page_elsewhere(signed) as good, page_elsewhere(unsigned) as bad:
            page = context.pages[0]
            page.goto(good)
            page.wait_for_function("() => window.kinds.includes('metrics') && window.kinds.includes('status')")
            assert page.evaluate(WIDTHS) == [8, 8]
            page.goto(bad)
            page.wait_for_function("() => events.readyState === EventSource.CLOSED")
            assert page.evaluate(WIDTHS) == [0, 0]
            assert page.evaluate("() => window.kinds") == []
