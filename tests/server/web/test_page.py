"""The page at `/` and the one at `/docs`, in a real browser.

At the end of each test its browser is asked for dialogs, script errors, requests to other
addresses and violations of the page's policy: there must be none.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import wave
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import FilePayload, Page, Route, expect

from simple_asr.audio.decode import DecoderPool
from simple_asr.errors import EngineFailed, InvalidParameter, Overloaded, UnreadableMedia
from simple_asr.service.fake import TRANSCRIPT, FakeTranscriber
from simple_asr.service.transcriber import ModelState
from simple_asr.transcript.model import Segment, Transcript, Word
from tests.server.conftest import KEY
from tests.server.web.conftest import Visit
from tests.support import Clip

Open = Callable[..., Visit]

SEGMENT = TRANSCRIPT.segments[0]


def timed(text: str, start: float, *probabilities: float) -> Segment:
    """A segment whose words last half a second each."""
    words = tuple(
        Word(f" {word}", start + 0.5 * index, start + 0.5 * index + 0.5, probability)
        for index, (word, probability) in enumerate(zip(text.split(), probabilities, strict=True))
    )
    return replace(SEGMENT, start=start, end=words[-1].end, text=f" {text}", words=words)


def transcript(*segments: Segment) -> Transcript:
    text = "".join(segment.text for segment in segments)
    return replace(
        TRANSCRIPT, text=text, segments=segments, language="en", duration=segments[-1].end
    )


def words_of(page: Page) -> list[str]:
    return page.get_by_test_id("word").all_inner_texts()


def wait_until_done(page: Page, count: int = 1) -> None:
    expect(page.locator(".job.done")).to_have_count(count)


def downloaded(page: Page, ending: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_test_id(f"download-{ending}").click()
    return Path(download.value.path()).read_bytes()


# Real speech ------------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.timeout(900)
def test_a_recording_becomes_the_file_that_the_api_answers_with(
    visit: Open, real_site: str, spoken: Clip, key: str
) -> None:
    one = visit(real_site)
    one.choose(spoken.path)
    one.start(key)
    wait_until_done(one.page)

    answer = httpx.post(
        f"{real_site}transcribe",
        headers={"X-API-Key": key},
        files={"audio_file": spoken.path.read_bytes()},
        data={"format": "srt", "word_timestamps": "true"},
        timeout=600,
    )
    assert downloaded(one.page, "srt") == answer.content


@pytest.mark.weights
@pytest.mark.timeout(900)
def test_what_the_microphone_hears_is_transcribed(visit: Open, real_site: str, key: str) -> None:
    one = visit(real_site)
    record = one.page.get_by_test_id("record")

    record.click()
    expect(one.page.locator("#level")).to_have_js_property("hidden", False)
    one.page.wait_for_selector("#level:not([value='0'])")
    expect(record).to_contain_text("0:03")
    record.click()
    expect(one.page.get_by_test_id("job-name")).to_contain_text("Recording")
    one.start(key)
    wait_until_done(one.page)

    assert words_of(one.page) != []
    expect(one.page.locator("#player")).to_be_visible()


@pytest.mark.weights
@pytest.mark.timeout(900)
def test_progress_moves_with_the_windows_and_segments_come_before_the_end(
    visit: Open, real_site: str, repeated_speech: Path, key: str
) -> None:
    one = visit(real_site)
    one.page.evaluate(
        """() => {
          window.seen = [];
          const look = () => window.seen.push([
            document.querySelector("[data-testid=progress]").value,
            document.querySelectorAll("[data-testid=segment]").length,
            document.querySelector("[data-testid=progress-text]").textContent,
          ]);
          new MutationObserver(look).observe(document.querySelector("main"),
            { subtree: true, childList: true, characterData: true, attributes: true });
        }"""
    )
    one.page.get_by_test_id("more").locator("summary").click()
    one.page.get_by_label("temperature", exact=True).fill("0")
    # A window for each of the first two times it is said.
    one.page.get_by_label("clip_timestamps").fill("0,3,3,6")
    one.choose(repeated_speech)
    one.start(key)
    wait_until_done(one.page)

    seen = one.page.evaluate("window.seen")
    values = [value for value, _, _ in seen]
    assert values == sorted(values)
    midway = [(segments, text) for value, segments, text in seen if 0 < value < 100]
    assert any(segments > 0 for segments, _ in midway)
    assert any(re.search(r"%.*× real time.*left", text) for _, text in midway)


@pytest.fixture
def repeated_speech(spoken: Clip, decoder: DecoderPool, tmp_path: Path) -> Path:
    """The clip three times."""
    with decoder.decode(spoken.path) as recording:
        samples = recording.read(0, recording.num_samples)
    path = tmp_path / "repeated.wav"
    write_wav(path, np.tile(samples * 32767, 3).astype(np.int16))
    return path


def write_wav(path: Path, samples: NDArray[np.int16]) -> None:
    with wave.open(str(path), "wb") as stream:
        stream.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
        stream.writeframes(samples.tobytes())


# The transcript ---------------------------------------------------------------------------------


def test_a_word_that_is_clicked_is_played_from_and_marked(
    transcriber: FakeTranscriber, visit: Open, site: str, real_wave: Path
) -> None:
    transcriber.transcript = transcript(timed("one two three four five", 0, 1, 1, 1, 1, 1))
    one = visit(site)
    one.choose(real_wave)
    one.start(KEY)
    wait_until_done(one.page)

    one.page.get_by_test_id("word").nth(2).click()

    expect(one.page.locator(".word.spoken")).to_have_text(re.compile("three|four|five"))
    assert one.page.evaluate("document.querySelector('audio').currentTime") >= 1


def test_segments_appear_while_the_rest_is_being_recognised(
    visit: Open, site: str, key: str, media: Path, transcriber: FakeTranscriber
) -> None:
    transcriber.transcript = transcript(timed("One two", 0, 1, 1), timed("three", 1, 1))
    transcriber.is_stuck_late = True
    one = visit(site)

    one.choose(media)
    one.start(key)

    expect(one.page.get_by_test_id("segment")).to_have_text(["0:00One two"])
    expect(one.page.get_by_test_id("progress-text")).to_contain_text("67%")
    assert float(one.page.get_by_test_id("progress").get_attribute("value") or 0) < 100


def test_doubtful_words_are_shaded_and_doubtful_segments_flagged(
    visit: Open, site: str, key: str, media: Path, transcriber: FakeTranscriber
) -> None:
    fine = timed("sure unsure lost", 0, 0.99, 0.6, 0.1)
    transcriber.transcript = transcript(fine, replace(timed("again", 2, 1), compression_ratio=3.0))
    one = visit(site)

    one.choose(media)
    one.start(key)
    wait_until_done(one.page)

    words = one.page.get_by_test_id("word")
    assert ["doubt2" in (words.nth(i).get_attribute("class") or "") for i in range(3)] == [
        False,
        True,
        False,
    ]
    assert "doubt3" in (words.nth(2).get_attribute("class") or "")
    expect(one.page.locator(".flagged")).to_contain_text("The text repeats itself")
    expect(one.page.locator(".flagged")).to_have_count(1)


def test_an_edited_text_is_what_is_copied_downloaded_and_kept(
    visit: Open, site: str, key: str, media: Path, transcriber: FakeTranscriber
) -> None:
    transcriber.transcript = transcript(timed("Hello word", 0, 1, 0.3), timed("and more", 1, 1, 1))
    one = visit(site)
    one.choose(media)
    one.start(key)
    wait_until_done(one.page)

    one.page.get_by_test_id("edit").click()
    one.page.get_by_label("Text at 0:00").fill("Hello world")
    one.page.get_by_label("Text at 0:01").fill("and much more")
    one.page.get_by_test_id("edit").click()

    assert words_of(one.page) == ["Hello", "world", "and", "much", "more"]
    assert downloaded(one.page, "txt") == b"Hello world and much more\n"
    srt = downloaded(one.page, "srt").decode()
    assert "00:00:01,000 --> 00:00:02,000\nand much more" in srt
    document = json.loads(downloaded(one.page, "json"))
    assert document["segments"][0]["words"][1] == {
        "word": " world",
        "start": 0.5,
        "end": 1.0,
        "probability": 1.0,
    }
    one.page.reload()
    one.page.get_by_test_id("history").locator("summary").click()
    one.page.get_by_test_id("history-entry").click()
    assert words_of(one.page) == ["Hello", "world", "and", "much", "more"]


def test_the_text_can_be_searched_across_words(
    visit: Open, site: str, key: str, media: Path, transcriber: FakeTranscriber
) -> None:
    transcriber.transcript = transcript(timed("a (b) c", 0, 1, 1, 1), timed("A (B) d", 2, 1, 1, 1))
    one = visit(site)
    one.choose(media)
    one.start(key)
    wait_until_done(one.page)
    search = one.page.get_by_test_id("search")

    search.fill("a (b)")
    expect(one.page.locator("#matches")).to_have_text("1 of 2")
    search.press("Enter")
    expect(one.page.locator("#matches")).to_have_text("2 of 2")
    marked = "[...[...CSS.highlights.get('found-now')][0].toString()].join('')"
    assert one.page.evaluate(marked) == "A (B)"
    search.fill("nowhere")
    expect(one.page.locator("#matches")).to_have_text("Not found")


def test_the_text_can_be_copied(visit: Open, site: str, key: str, media: Path) -> None:
    one = visit(site)
    one.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    one.choose(media)
    one.start(key)
    wait_until_done(one.page)

    one.page.get_by_test_id("copy").click()

    expect(one.page.get_by_test_id("copy")).to_have_text("Copied")
    assert one.page.evaluate("navigator.clipboard.readText()") == "Привет, как дела?"


# What is sent -----------------------------------------------------------------------------------


def test_what_is_chosen_reaches_the_server(
    visit: Open, site: str, key: str, media: Path, transcriber: FakeTranscriber
) -> None:
    one = visit(site)
    one.page.get_by_test_id("language").select_option("de")
    one.page.get_by_test_id("task").select_option("translate")
    one.page.get_by_test_id("more").locator("summary").click()
    one.page.get_by_label("beam_size").fill("3")
    one.page.get_by_label("condition_on_previous_text").select_option("false")
    one.choose(media)
    one.start(key)
    wait_until_done(one.page)

    options = transcriber.asked[0].options
    assert (options.language, options.task, options.beam_size) == ("de", "translate", 3)
    assert (options.condition_on_previous_text, options.word_timestamps) == (False, True)


def test_options_of_subtitles_shape_the_downloads(
    visit: Open, site: str, key: str, media: Path, transcriber: FakeTranscriber
) -> None:
    transcriber.transcript = transcript(timed("one two three", 0, 1, 1, 1))
    one = visit(site)
    one.page.get_by_test_id("more").locator("summary").click()
    one.page.get_by_label("max_words_per_line").fill("1")
    one.choose(media)
    one.start(key)
    wait_until_done(one.page)

    assert downloaded(one.page, "vtt").count(b"-->") == 3
    expect(one.page.get_by_test_id("notice")).to_have_count(0)


def test_several_files_are_transcribed_in_one_go_and_each_can_be_shown(
    visit: Open, site: str, key: str, tmp_path: Path
) -> None:
    files = [tmp_path / f"{name}.wav" for name in "abcde"]
    for file in files:
        file.write_bytes(b"RIFF")
    one = visit(site)

    one.choose(*files)
    one.start(key)
    wait_until_done(one.page, 5)
    one.page.get_by_role("button", name="Show").nth(3).click()

    expect(one.page.get_by_test_id("name")).to_have_text("d.wav")
    expect(one.page.get_by_test_id("progress-text")).to_have_text("100%")


def test_a_file_can_be_dropped_and_pasted(visit: Open, site: str) -> None:
    one = visit(site)
    give = """(kind) => {
      const data = new DataTransfer();
      data.items.add(new File(["RIFF"], `${kind}.wav`));
      const init = { bubbles: true, dataTransfer: data, clipboardData: data };
      document.body.dispatchEvent(
        kind === "drop" ? new DragEvent(kind, init) : new ClipboardEvent(kind, init));
    }"""

    one.page.evaluate(give, "drop")
    one.page.evaluate(give, "paste")

    expect(one.page.get_by_test_id("job-name")).to_have_text(["drop.wav", "paste.wav"])


# Long files -------------------------------------------------------------------------------------


@pytest.fixture
def long_media(tmp_path: Path) -> Path:
    """As many bytes as the page leaves to the server."""
    path = tmp_path / "talk.wav"
    path.write_bytes(bytes(10_000_000))
    return path


def test_a_long_file_is_done_though_the_page_was_closed(
    visit: Open, site: str, key: str, long_media: Path, transcriber: FakeTranscriber
) -> None:
    transcriber.is_stuck = True
    one = visit(site)
    one.choose(long_media)
    one.start(key)
    expect(one.page.get_by_test_id("job-state")).to_contain_text("you may close this page")

    one.reopen()
    expect(one.page.get_by_test_id("job-state")).to_contain_text("The server has this file")
    one.start(key)
    expect(one.page.get_by_test_id("job-state")).to_contain_text("you may close this page")
    transcriber.free()
    wait_until_done(one.page)

    expect(one.page.get_by_test_id("segment")).to_have_text(["0:00Привет, как дела?"])
    assert [asked.content for asked in transcriber.asked] == [bytes(10_000_000)]
    one.reopen()
    expect(one.page.get_by_test_id("history-entry")).to_have_text("talk.wav")
    expect(one.page.get_by_test_id("job")).to_have_count(0)


def test_a_page_that_is_loaded_again_follows_its_long_files_by_itself(
    visit: Open, site: str, key: str, long_media: Path, transcriber: FakeTranscriber
) -> None:
    transcriber.is_stuck = True
    one = visit(site)
    one.choose(long_media)
    one.start(key)
    expect(one.page.get_by_test_id("job-state")).to_contain_text("you may close this page")

    one.page.reload()
    transcriber.free()

    wait_until_done(one.page)


def test_a_long_file_that_is_cancelled_is_cancelled_on_the_server(
    visit: Open, site: str, key: str, long_media: Path, transcriber: FakeTranscriber
) -> None:
    transcriber.is_stuck_late = True
    one = visit(site)
    one.choose(long_media)
    one.start(key)
    expect(one.page.get_by_test_id("segment")).to_have_count(1)

    one.page.get_by_role("button", name="Cancel talk.wav").click()

    expect(one.page.get_by_test_id("job-state")).to_have_text("Cancelled")
    assert transcriber.ended.wait(60)
    listed = httpx.get(f"{site}jobs", headers={"X-API-Key": key}).json()
    assert [job["state"] for job in listed["jobs"]] == ["cancelled"]


def test_a_long_file_that_fails_is_told_of_and_can_be_sent_again(
    visit: Open, site: str, key: str, long_media: Path, transcriber: FakeTranscriber
) -> None:
    transcriber.error = UnreadableMedia("This is no audio.")
    one = visit(site)
    one.choose(long_media)
    one.start(key)
    expect(one.page.get_by_test_id("error")).to_contain_text("This is no audio.")

    transcriber.error = None
    one.page.get_by_test_id("retry").click()
    one.page.get_by_test_id("start").click()

    wait_until_done(one.page)


def test_a_long_file_is_followed_over_a_broken_connection(
    visit: Open, site: str, key: str, long_media: Path, transcriber: FakeTranscriber
) -> None:
    first, second = timed("One", 0, 1), replace(timed("two", 1, 1), id=1)
    transcriber.transcript = transcript(first, second)
    one = visit(site)
    told = json.dumps(asdict(first))

    def break_off(route: Route) -> None:
        assert route.request.headers["last-event-id"] == "0"
        body = f"event: segment\nid: 1\ndata: {told}\n\n"
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    one.page.route("**/events", break_off, times=1)
    one.choose(long_media)
    one.start(key)
    expect(one.page.get_by_test_id("job-state")).to_contain_text("cannot be reached")
    wait_until_done(one.page)

    assert words_of(one.page) == ["One", "two"]


LOSE_NEXT_ANSWER = """() => {
  const { send } = XMLHttpRequest.prototype;
  XMLHttpRequest.prototype.send = function (body) {
    XMLHttpRequest.prototype.send = send;
    this.onload = this.onerror;
    this.send(body);
  };
}"""


@pytest.mark.parametrize(
    ("beams", "num_jobs"), [("", 1), ("3", 2)], ids=["the same order", "another order"]
)
def test_a_long_file_whose_answer_was_lost_becomes_a_second_job_only_by_another_order(
    visit: Open, site: str, long_media: Path, beams: str, num_jobs: int
) -> None:
    one = visit(site)
    one.page.evaluate(LOSE_NEXT_ANSWER)
    one.choose(long_media)
    one.start(KEY)
    expect(one.page.get_by_test_id("error")).to_be_visible()

    one.page.get_by_test_id("retry").click()
    one.page.get_by_test_id("more").locator("summary").click()
    one.page.get_by_label("beam_size").fill(beams)
    one.page.get_by_test_id("start").click()

    wait_until_done(one.page)
    listed = httpx.get(f"{site}jobs", headers={"X-API-Key": KEY}).json()
    assert len(listed["jobs"]) == num_jobs


def test_a_long_file_that_the_server_takes_for_another_is_told_of_and_can_be_sent_as_a_new_one(
    visit: Open, site: str, long_media: Path
) -> None:
    one = visit(site)
    sent_under: list[str] = []

    def take(route: Route) -> None:
        sent_under.append(route.request.headers["idempotency-key"])
        if len(sent_under) > 1:
            route.continue_()
            return
        problem = {"status": 409, "code": "idempotency_mismatch", "detail": "A new header."}
        route.fulfill(status=409, json=problem)

    one.page.route("**/jobs", take)
    one.choose(long_media)
    one.start(KEY)
    expect(one.page.get_by_test_id("error")).to_contain_text(
        "Try again, and this file becomes a job"
    )

    one.page.get_by_test_id("retry").click()
    one.page.get_by_test_id("start").click()

    wait_until_done(one.page)
    first, second = sent_under
    assert first != second


# The key ----------------------------------------------------------------------------------------


def test_the_key_is_asked_for_once_and_kept_out_of_addresses(
    visit: Open, site: str, key: str, media: Path
) -> None:
    one = visit(site)
    addresses: list[str] = []
    one.page.on("request", lambda request: addresses.append(request.url))
    one.choose(media)
    one.start(key)
    wait_until_done(one.page)

    one.page.reload()
    one.choose(media)
    one.page.get_by_test_id("start").click()
    wait_until_done(one.page)

    assert not [address for address in [*addresses, one.page.url] if key in address]
    assert one.page.evaluate("localStorage.length") == 0


def test_a_wrong_key_is_told_and_asked_for_again(
    visit: Open, site: str, key: str, media: Path
) -> None:
    one = visit(site)
    one.choose(media)
    one.start("wrong")
    expect(one.page.get_by_test_id("error")).to_contain_text("key")
    expect(one.page.get_by_test_id("key")).to_be_focused()

    one.start(key)

    wait_until_done(one.page)
    expect(one.page.get_by_test_id("error")).to_have_count(0)


def test_without_a_key_nothing_is_sent(
    visit: Open, site: str, media: Path, transcriber: FakeTranscriber
) -> None:
    one = visit(site)
    one.choose(media)

    one.page.get_by_test_id("start").click()

    expect(one.page.get_by_test_id("error")).to_contain_text("Enter the API key first")
    assert transcriber.asked == []


# When it goes wrong -----------------------------------------------------------------------------


def test_a_refused_parameter_is_pointed_at(visit: Open, site: str, key: str, media: Path) -> None:
    one = visit(site)
    one.page.get_by_test_id("more").locator("summary").click()
    one.page.get_by_label("beam_size").fill("99")
    one.choose(media)
    one.start(key)

    expect(one.page.get_by_test_id("error")).to_contain_text("beam_size '99'")
    expect(one.page.get_by_label("beam_size")).to_be_focused()


def test_a_file_that_fails_can_be_tried_again(
    visit: Open, site: str, key: str, media: Path, transcriber: FakeTranscriber
) -> None:
    transcriber.late_error = EngineFailed("The model failed on this request.")
    one = visit(site)
    one.choose(media)
    one.start(key)
    expect(one.page.get_by_test_id("error")).to_contain_text("The model failed")

    transcriber.late_error = None
    one.page.get_by_test_id("retry").click()
    one.page.get_by_test_id("start").click()

    wait_until_done(one.page)


def test_a_busy_server_is_asked_again_by_itself(
    visit: Open, site: str, key: str, media: Path, transcriber: FakeTranscriber
) -> None:
    transcriber.error = Overloaded("Too many requests wait.", retry_after=1)
    one = visit(site)
    one.choose(media)
    one.start(key)
    expect(one.page.get_by_test_id("job-state")).to_contain_text("trying again in 1 s")

    transcriber.error = None

    wait_until_done(one.page)
    expect(one.page.get_by_test_id("error")).to_have_count(0)


def test_a_model_that_is_being_loaded_is_waited_for(
    visit: Open, site: str, key: str, media: Path, transcriber: FakeTranscriber
) -> None:
    ready = transcriber.state
    transcriber.state = ModelState("loading", "turbo", "turbo")
    one = visit(site)
    one.choose(media)
    one.start(key)
    expect(one.page.get_by_test_id("job-state")).to_contain_text("being loaded")
    assert transcriber.asked == []

    transcriber.state = ready

    wait_until_done(one.page)


def test_a_file_can_be_cancelled(
    visit: Open, site: str, key: str, media: Path, transcriber: FakeTranscriber
) -> None:
    transcriber.is_stuck_late = True
    one = visit(site)
    one.choose(media)
    one.start(key)
    expect(one.page.get_by_test_id("segment")).to_have_count(1)

    one.page.get_by_role("button", name="Cancel clip.wav").click()

    expect(one.page.get_by_test_id("job-state")).to_have_text("Cancelled")
    assert transcriber.ended.wait(60)


def test_a_connection_that_breaks_midway_is_told_and_keeps_what_came(
    visit: Open, site: str, key: str, media: Path
) -> None:
    one = visit(site)
    half = {"start": 0.0, "end": 1.0, "text": " Half of it", "avg_logprob": -0.1}

    def break_off(route: Route) -> None:
        route.fulfill(
            status=200,
            content_type="text/event-stream",
            body=f": keep-alive\n\nevent: segment\ndata: {json.dumps(half)}\n\nevent: do",
        )

    one.page.route("**/transcribe", break_off)
    one.choose(media)
    one.start(key)

    expect(one.page.get_by_test_id("error")).to_contain_text("connection to the server broke")
    expect(one.page.get_by_test_id("transcript")).to_contain_text("Half of it")


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(
    visit: Open,
    narrow_site: str,
    key: str,
    media: Path,
    transcriber: FakeTranscriber,
) -> None:
    one = visit(narrow_site)
    expect(one.page.locator("#version")).not_to_be_empty()

    one.choose(media)

    expect(one.page.get_by_test_id("error")).to_contain_text("takes at most 5 byte")
    assert transcriber.asked == []


# Nothing is markup ------------------------------------------------------------------------------

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><script>alert(1)</script>",
    "<iframe src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>click</a>",
    "<body onload=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<math><mtext><img src=x onerror=alert(1)>",
    "<style>@import 'http://192.0.2.1/x';</style>",
    "<link rel=stylesheet href=http://192.0.2.1/x.css>",
    "<base href=http://192.0.2.1/>",
    "<meta http-equiv=refresh content=0;url=http://192.0.2.1/>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<form action=http://192.0.2.1/><button autofocus>",
    "<img src=http://192.0.2.1/pixel>",
    "${alert(1)}",
    "{{constructor.constructor('alert(1)')()}}",
    "javascript:alert(1)",
    "</textarea><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "<!--<img src=--><img src=x onerror=alert(1)>",
    "<template><img src=x onerror=alert(1)></template>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "\u202e<script>alert(1)</script>",
]


def test_file_names_and_transcripts_with_markup_are_text(
    visit: Open, site: str, key: str, transcriber: FakeTranscriber
) -> None:
    transcriber.transcript = transcript(
        *(
            timed(payload, index, *[0.5] * len(payload.split()))
            for index, payload in enumerate(PAYLOADS)
        )
    )
    names = [payload.replace("/", "∕") + ".wav" for payload in PAYLOADS]
    one = visit(site)
    one.page.get_by_test_id("file").set_input_files(
        [FilePayload(name=name, mimeType="audio/wav", buffer=b"RIFF") for name in names]
    )
    one.start(key)
    wait_until_done(one.page, len(PAYLOADS))

    assert one.page.get_by_test_id("job-name").all_text_contents() == names
    shown = [
        text.split(":", 1)[1][2:] for text in one.page.get_by_test_id("segment").all_text_contents()
    ]
    assert shown == PAYLOADS
    one.page.get_by_test_id("edit").click()
    assert one.page.locator("textarea").first.input_value() == PAYLOADS[0]
    one.page.get_by_test_id("history").locator("summary").click()
    assert set(one.page.get_by_test_id("history-entry").all_text_contents()) == set(names)


def test_prompts_and_errors_with_markup_are_text(
    visit: Open, site: str, key: str, media: Path, transcriber: FakeTranscriber
) -> None:
    payload = "\n".join(PAYLOADS)
    transcriber.error = InvalidParameter(payload)
    one = visit(site)
    one.page.get_by_test_id("more").locator("summary").click()
    one.page.get_by_label("initial_prompt", exact=True).fill(payload.replace("\n", " "))
    one.choose(media)
    one.start(key)

    expect(one.page.get_by_test_id("error")).to_contain_text(PAYLOADS[0])
    assert transcriber.asked[0].options.initial_prompt == payload.replace("\n", " ")


def test_a_script_put_into_the_page_does_not_run(visit: Open, site: str) -> None:
    one = visit(site)

    refused = one.page.evaluate(
        "() => { try { document.body.innerHTML = '<p>'; } catch { return true; } return false; }"
    )

    assert refused
    assert one.page.evaluate("window.violations.splice(0)") != []


# For everybody ----------------------------------------------------------------------------------

AXE = Path(
    str(
        importlib.metadata.distribution("axe-playwright-python").locate_file(
            "axe_playwright_python"
        )
    )
)


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_the_page_keeps_the_rules_of_accessibility(
    transcriber: FakeTranscriber, visit: Open, site: str, media: Path, *, is_dark: bool
) -> None:
    transcriber.transcript = transcript(timed("Hello big world", 0, 0.8, 0.5, 0.2))
    one = visit(site, is_dark=is_dark)
    one.page.get_by_test_id("more").locator("summary").click()
    one.choose(media)
    one.start(KEY)
    wait_until_done(one.page)

    assert violations_of_axe(one.page) == []


def test_the_api_page_keeps_the_rules_of_accessibility(visit: Open, site: str) -> None:
    one = visit(f"{site}docs")
    one.page.locator("[id='POST /transcribe']").click()

    assert violations_of_axe(one.page) == []


def violations_of_axe(page: Page) -> list[str]:
    page.evaluate((AXE / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(({ violations }) => violations)")
    return [
        f"{rule['id']}: {[node['html'] for node in rule['nodes']]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


def test_it_can_be_used_by_keyboard_alone(visit: Open, site: str, key: str, media: Path) -> None:
    one = visit(site)
    keyboard = one.page.keyboard
    one.page.get_by_test_id("key").focus()
    keyboard.type(key)
    one.choose(media)

    keyboard.press("Enter")
    wait_until_done(one.page)

    reached = set()
    for _ in range(40):
        keyboard.press("Tab")
        reached.add(one.page.evaluate("document.activeElement.dataset.testid"))
    assert reached >= {"record", "language", "search", "edit", "download-srt"}


def test_the_player_is_moved_by_keys(visit: Open, real_wave: Path, site: str, key: str) -> None:
    one = visit(site)
    one.choose(real_wave)
    one.start(key)
    wait_until_done(one.page)
    position = one.page.get_by_test_id("waveform")

    position.focus()
    position.press("End")

    expect(position).to_have_attribute("aria-valuetext", "0:02")
    position.press("Home")
    expect(position).to_have_attribute("aria-valuetext", "0:00")


@pytest.fixture
def real_wave(tmp_path: Path) -> Path:
    """2.5 s of silence, as the fake transcript lasts."""
    path = tmp_path / "silence.wav"
    write_wav(path, np.zeros(40_000, np.int16))
    return path


@pytest.mark.parametrize("width", [320, 390, 1100])
def test_nothing_is_wider_than_the_window(
    visit: Open, site: str, key: str, media: Path, width: int
) -> None:
    one = visit(site, width=width)
    one.page.get_by_test_id("more").locator("summary").click()
    one.choose(media)
    one.start(key)
    wait_until_done(one.page)

    assert one.page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_speaks_russian_to_a_russian_browser(
    visit: Open, site: str, key: str, media: Path
) -> None:
    one = visit(site, locale="ru-RU")
    one.page.get_by_test_id("more").locator("summary").click()
    expect(one.page.get_by_test_id("start")).to_have_text("Расшифровать")
    expect(one.page.get_by_test_id("language")).to_contain_text("немецкий")
    expect(one.page.locator("#parameters")).to_contain_text("Число лучей")
    assert one.page.evaluate("document.documentElement.lang") == "ru"

    one.page.get_by_role("button", name="English").click()

    expect(one.page.get_by_test_id("start")).to_have_text("Transcribe")


def test_the_page_says_which_model_is_served_in_place_of_another(
    visit: Open, site: str, transcriber: FakeTranscriber
) -> None:
    transcriber.state = ModelState("ready", requested="turbo", served="base")

    one = visit(site)

    expect(one.page.locator("#model")).to_have_text("Model: base, since turbo cannot be had")


def test_the_history_can_be_cleared(visit: Open, site: str, key: str, media: Path) -> None:
    one = visit(site)
    one.choose(media)
    one.start(key)
    wait_until_done(one.page)
    one.page.get_by_test_id("history").locator("summary").click()

    one.page.get_by_test_id("history-clear").click()

    expect(one.page.get_by_test_id("history")).to_be_hidden()


def test_the_api_page_lists_every_path_and_its_parameters(visit: Open, site: str) -> None:
    document = httpx.get(f"{site}openapi.json").json()
    one = visit(f"{site}docs")

    operations = one.page.get_by_test_id("operation")
    expect(operations).to_have_count(sum(len(methods) for methods in document["paths"].values()))
    transcribe = operations.filter(has_text="/transcribe Transcribe")
    transcribe.locator("summary").click()
    for parameter in document["paths"]["/transcribe"]["post"]["parameters"]:
        names = transcribe.locator("td:first-child code")
        # A parameter may stand in the address and in the form.
        named = names.filter(has_text=re.compile(f"^{parameter['name']}$"))
        expect(named.first).to_be_visible()
