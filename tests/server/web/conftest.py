"""A real browser on a live server: Chromium of this machine, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Dialog, Page, Request, expect, sync_playwright

from simple_asr.assembly import build_transcriber
from simple_asr.server.app import create_app
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings
from tests.support import Clip

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_MS = 300_000
# Kept by the page itself, since a violation is told to nobody else.
KEEP_VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  window.violations.push(`${violatedDirective} ${blockedURI}`));
"""


@pytest.fixture(scope="session")
def spoken(speech: list[Clip]) -> Clip:
    """English speech, which is what the browser's microphone hears."""
    return max(
        (clip for clip in speech if clip.language == "en"),
        key=lambda clip: clip.path.stat().st_size,
    )


# Not for the session: while it is open, this thread has an event loop that others trip over.
@pytest.fixture(scope="module")
def browser(spoken: Clip) -> Iterator[Browser]:
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium: install it, or name its program in CHROMIUM")
    arguments = [
        "--no-sandbox",
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken.path}",
    ]
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page in a browser of its own, and what it did that it should not."""

    page: Page
    address: str
    dialogs: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def watch(self) -> None:
        own = (self.address.rpartition("/")[0], "blob:", "data:")

        def answer_dialog(dialog: Dialog) -> None:
            self.dialogs.append(dialog.message)
            dialog.accept()

        def note_stranger(request: Request) -> None:
            if not request.url.startswith(own):
                self.strangers.append(request.url)

        self.page.on("dialog", answer_dialog)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", note_stranger)

    def check(self) -> None:
        """Nothing went wrong that the tests themselves did not look at."""
        violations = self.page.evaluate("window.violations")
        faults = [*self.dialogs, *self.errors, *self.strangers, *violations]
        assert faults == []

    def reopen(self) -> None:
        """Closes the page, as somebody would, and opens it anew in the same browser."""
        self.check()
        context = self.page.context
        with self.page.expect_event("close"):
            self.page.close(run_before_unload=True)
        self.page = context.new_page()
        self.watch()
        self.page.goto(self.address)

    def choose(self, *files: Path) -> None:
        self.page.get_by_test_id("file").set_input_files([*files])

    def start(self, key: str) -> None:
        self.page.get_by_test_id("key").fill(key)
        self.page.get_by_test_id("start").click()


class Visits:
    """Opens pages, each in a window of its own; closed once, and checked then."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._open: list[Visit] = []

    def open(
        self, address: str, *, locale: str = "en-US", width: int = 1100, is_dark: bool = False
    ) -> Visit:
        """`width` is in CSS pixels."""
        context = self._browser.new_context(
            locale=locale,
            viewport={"width": width, "height": 900},
            color_scheme="dark" if is_dark else "light",
        )
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(KEEP_VIOLATIONS)
        visit = Visit(context.new_page(), address)
        self._open.append(visit)
        visit.watch()
        visit.page.goto(address)
        return visit

    def close(self) -> None:
        while self._open:
            visit = self._open.pop()
            visit.check()
            visit.page.context.close()


@pytest.fixture
def visits(browser: Browser) -> Iterator[Visits]:
    visits = Visits(browser)
    yield visits
    visits.close()


@pytest.fixture
def visit(visits: Visits) -> Callable[..., Visit]:
    return visits.open


@pytest.fixture
def site(
    app: FastAPI, live: Callable[[FastAPI], AbstractContextManager[int]], visits: Visits
) -> Iterator[str]:
    """A server with the fake transcriber."""
    with live(app) as port:
        yield f"http://127.0.0.1:{port}/"
        # First the callers, for whom a server that stops would wait.
        visits.close()


@pytest.fixture
def narrow_site(
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    transcriber: FakeTranscriber,
    live: Callable[[FastAPI], AbstractContextManager[int]],
) -> Iterator[str]:
    """The same, for uploads of 5 bytes at most."""
    settings = make_settings(max_upload_bytes=5)
    with live(create_app(settings, transcriber, make_key_store(settings))) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def real_site(
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    live: Callable[[FastAPI], AbstractContextManager[int]],
    models_root: Path,
) -> Iterator[str]:
    """A server with the real model."""
    settings = make_settings(
        default_model="base",
        model_download_root=models_root,
        model_device="cpu",
        hf_hub_offline=True,
    )
    transcriber = build_transcriber(settings)
    transcriber.start()
    try:
        assert transcriber.wait_until_loaded().status == "ready"
        with live(create_app(settings, transcriber, make_key_store(settings))) as port:
            yield f"http://127.0.0.1:{port}/"
    finally:
        transcriber.close()


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A file whose content the fake transcriber does not look at."""
    path = tmp_path / "clip.wav"
    path.write_bytes(b"RIFF....WAVE")
    return path
