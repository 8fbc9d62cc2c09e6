"""A real Chromium against a real server. If there is no Chromium, these tests are skipped with that reason."""

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

if TYPE_CHECKING:
    from pytest_django.live_server_helper import LiveServer

ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
ARGS += ["--disable-component-update", "--disable-sync"]
ARGS += ["--disable-dev-shm-usage"]  # /dev/shm is small in a container
PATIENCE_MS = 60_000.0  # for events that must happen, on a slow machine
PASSWORD = "a long enough word"
PAGES = pytest.StashKey[list[Page]]()


def program() -> str | None:
    """POINTSMAN_CHROMIUM, or the first Chromium on the PATH."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return os.environ.get("POINTSMAN_CHROMIUM") or next(filter(None, found), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = program()
    if path is None:
        pytest.skip("there is no Chromium; install one, or name it in POINTSMAN_CHROMIUM")
    # Playwright runs an event loop in this thread, so Django would refuse to use the database. The setting lasts only
    # as long as this module, because the loop ends with it.
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(executable_path=path, args=ARGS, timeout=PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what its pages show; "element not found" alone does not say where the test was."""
    report = yield
    if report.when == "call" and report.failed:
        report.sections += [("the page", _description(page)) for page in item.stash.get(PAGES, [])]
    return report


def _description(page: Page) -> str:
    try:
        text = page.locator(":is(body, main)").last.inner_text(timeout=5_000)
    except PlaywrightError as error:
        text = f"(cannot be read: {error})"
    return f"{page.url}\n{text[:4_000]}"


def _is_refused(line: str) -> bool:
    return "Content Security Policy" in line


@pytest.fixture
def as_person(
    request: pytest.FixtureRequest, chromium: Browser, live_server: "LiveServer"
) -> Iterator[Callable[..., Page]]:
    """`as_person("tom", "approver")` logs in by the form.

    A script's error on any page fails the test, and so does whatever the Content-Security-Policy refuses.
    """
    from django.contrib.auth.models import User

    from tests.support.people import logged_in

    contexts, errors = [], []
    pages = request.node.stash.setdefault(PAGES, [])

    def open_page(name: str, *roles: str, team: Any = None, **options: Any) -> Page:
        logged_in(name, *roles, team=team)
        user = User.objects.get(username=name)
        user.set_password(PASSWORD)
        user.save(update_fields=["password"])
        contexts.append(chromium.new_context(**{"viewport": {"width": 1440, "height": 900}, **options}))
        contexts[-1].set_default_timeout(PATIENCE_MS)
        page = contexts[-1].new_page()
        pages.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if _is_refused(line.text) else None)
        page.goto(f"{live_server.url}/console/")
        page.fill("#id_username", name)
        page.fill("#id_password", PASSWORD)
        page.click("button:has-text('Log in')")
        page.wait_for_url(f"{live_server.url}/console/")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
