"""The docs pages in a real Chromium: a colleague trains and sees images with nothing but clicks, and nothing leaves the machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from app.main import create_app
from app.settings import Settings
from tests.browser import browser
from tests.live import running_up
from tests.servers import wait_until
from tests.serving import serving
from tests.source import HOUSE

UPDATE = os.environ.get("UPDATE_SCREENSHOTS") == "1"  # train long enough to be looked at, and keep the picture
EXAMPLES = 60_000 if UPDATE else 1_500
OPEN_SESAME = "open-sesame-open"
pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(600)]


class Swagger:
    """Swagger UI as a person uses it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(f"{url}/docs")

    def open(self, operation: str) -> Locator:
        """The operation's block, opened and ready to be tried."""
        block = self.page.locator(f".opblock[id$='-{operation}']")
        if block.locator(".execute").count() == 0:
            block.locator(".opblock-summary-control").click()
        expect(block.locator(".execute")).to_be_visible()
        return block

    def execute(self, operation: str, body: str | None = None) -> tuple[int, Locator]:
        """Clicks Execute, with the example or another body; the status and the block with the answer."""
        block = self.open(operation)
        if body is not None:
            block.locator("textarea.body-param__text").fill(body)
        with self.page.expect_response(lambda response: "/v1/" in response.url) as answer:
            block.locator(".execute").click()
        status = str(answer.value.status)
        expect(block.locator(".live-responses-table .response .response-col_status").first).to_contain_text(status)
        return answer.value.status, block

    def wait_for(self, operation: str, text: str, seconds: float) -> None:
        """Executes again and again until the answer has this text."""

        def told() -> bool:
            self.page.wait_for_timeout(500)
            status, block = self.execute(operation)
            return status == 200 and text in block.locator(".live-responses-table").inner_text()

        wait_until(told, seconds=seconds)


@pytest.mark.slow
def test_a_colleague_clicks_from_digits_to_images(tmp_path: Path) -> None:
    """Import digits, submit a short job, wait, and a generated PNG appears in the page; every request stays on the machine."""
    with running_up(tmp_path / "data") as up, browser(tmp_path) as context:
        requests: list[str] = []
        context.on("request", lambda request: requests.append(request.url))
        swagger = Swagger(context.pages[0], up.url)
        assert swagger.execute("import_dataset")[0] == 202
        swagger.wait_for("get_dataset", '"status": "ready"', seconds=60)
        assert swagger.execute("submit_job", f'{{"dataset": "digits", "budget": {{"examples": {EXAMPLES}}}}}')[0] == 201
        swagger.wait_for("get_job", '"status": "succeeded"', seconds=400)
        for operation, size in (("get_sample", (32, 32)), ("get_grid", (256, 256))):
            status, block = swagger.execute(operation)
            picture = block.locator(".live-responses-table img")
            assert status == 200
            expect(picture).to_be_visible()
            assert tuple(picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")) == size
        block.scroll_into_view_if_needed()
        shown = HOUSE / "docs" / "swagger.png" if UPDATE else tmp_path / "swagger.png"
        context.pages[0].screenshot(path=shown)
        assert all(url.startswith((up.url, "blob:", "data:")) for url in requests)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """The URL of a service that asks for the key `open-sesame-open`."""
    settings = Settings(data_dir=tmp_path / "data", api_keys=(OPEN_SESAME,))
    with serving(create_app(settings)) as client:
        yield str(client.base_url)


def test_the_page_takes_a_key(guarded: str, tmp_path: Path) -> None:
    """401 before, and 200 after the key was typed into Authorize."""
    with browser(tmp_path) as context:
        swagger = Swagger(context.pages[0], guarded)
        assert swagger.execute("list_jobs")[0] == 401
        page = context.pages[0]
        page.locator("button.authorize.unlocked").first.click()
        page.locator(".auth-container input").fill(OPEN_SESAME)
        page.locator(".auth-container button[type=submit]").click()
        page.locator(".auth-container .btn-done").click()
        assert swagger.execute("list_jobs")[0] == 200


def test_redoc_asks_nobody_else(guarded: str, tmp_path: Path) -> None:
    """It shows the operations; the one picture that it wants from elsewhere is stopped by the page's policy."""
    with browser(tmp_path) as context:
        answered, stopped = list[str](), list[str | None]()
        context.on("response", lambda response: answered.append(response.url))
        context.on("requestfailed", lambda request: stopped.append(request.failure))
        page = context.pages[0]
        page.goto(f"{guarded}/redoc")
        expect(page.get_by_role("heading", name="Submit a job")).to_be_attached(timeout=30_000)
        assert all(url.startswith((guarded, f"blob:{guarded}")) for url in answered)
        assert set(stopped) <= {"csp"}
