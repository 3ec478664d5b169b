"""The pages' files: what they may do, what they weigh, and that they speak of what there is."""

from __future__ import annotations

import re

import httpx
import pytest

from simple_asr.server.pages import WEB
from simple_asr.service.parameters import PARAMETERS
from simple_asr.transcript.formats import FORMATS
from simple_asr.transcript.languages import LANGUAGES

pytestmark = pytest.mark.anyio

BROWSER = {"Accept": "text/html"}
MAX_BYTES = 150_000
FILES = sorted(path for path in WEB.iterdir() if path.is_file())


async def policy_of(client: httpx.AsyncClient, path: str) -> dict[str, str]:
    header = (await client.get(path, headers=BROWSER)).headers["content-security-policy"]
    return dict(directive.strip().split(" ", 1) for directive in header.split(";"))


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_runs_its_own_files_alone_and_parses_no_markup(
    stranger: httpx.AsyncClient, path: str
) -> None:
    policy = await policy_of(stranger, path)

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
async def test_a_file_is_served_and_kept_only_as_long_as_it_holds(
    stranger: httpx.AsyncClient, file: object
) -> None:
    name = getattr(file, "name", "")
    first = await stranger.get(f"/web/{name}")
    again = await stranger.get(f"/web/{name}", headers={"If-None-Match": first.headers["etag"]})

    assert first.content == (WEB / name).read_bytes()
    assert first.headers["cache-control"] == "no-cache"
    assert again.status_code == 304


@pytest.mark.parametrize(
    "path", ["/web/", "/web/none.js", "/web/../pages.py", "/web/%2e%2e/app.py"]
)
async def test_nothing_else_is_served(stranger: httpx.AsyncClient, path: str) -> None:
    answer = await stranger.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_all_files_together_are_small() -> None:
    assert sum(file.stat().st_size for file in FILES) < MAX_BYTES


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_a_file_names_no_address_elsewhere(file: object) -> None:
    assert isinstance(file, type(WEB))
    addresses = set(re.findall(r"\w+://[^\s\"'`]+", file.read_text(encoding="utf-8")))

    # The name of a language of XML, which nobody fetches.
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_every_module_is_loaded_with_the_page_and_not_after_it() -> None:
    page = (WEB / "index.html").read_text(encoding="utf-8")
    imported = {
        name
        for file in WEB.glob("*.js")
        if file.name != "docs.js"
        for name in re.findall(r'^(?:import|\}) .*from "\./(\w+\.js)"', file.read_text(), re.M)
    }

    assert imported == set(re.findall(r'rel="modulepreload" href="web/(\w+\.js)"', page))


def test_the_languages_are_whispers() -> None:
    settings = (WEB / "settings.js").read_text(encoding="utf-8")
    listed = re.search(r"const LANGUAGES =\n(.*?);", settings, re.S)

    assert listed is not None
    assert "".join(re.findall('"(.*?)"', listed[1])).split() == list(LANGUAGES)


def test_the_formats_are_the_servers_with_their_endings() -> None:
    settings = (WEB / "settings.js").read_text(encoding="utf-8")
    listed = re.search(r"FORMATS = \{(.*?)\}", settings)

    assert listed is not None
    for name, ending in re.findall(r'(\w+): "(\w+)"', listed[1]):
        assert FORMATS[name].extension == ending


def test_both_languages_have_the_same_words() -> None:
    words = (WEB / "i18n.js").read_text(encoding="utf-8")
    english, russian = (
        set(re.findall(r"^  (\w+):", table, re.M))
        for table in re.findall(r"^const (?:EN|RU) = \{\n(.*?)^\};", words, re.M | re.S)
    )

    assert english == russian


def test_every_word_the_page_asks_for_is_there() -> None:
    page = (WEB / "index.html").read_text(encoding="utf-8")
    scripts = "\n".join(file.read_text(encoding="utf-8") for file in WEB.glob("*.js"))
    asked = set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', page))
    asked |= set(re.findall(r'\bt\("(\w+)"', scripts))
    known = set(re.findall(r"^  (\w+):", scripts, re.M))

    assert asked - known == set()


def test_the_russian_descriptions_are_of_parameters_that_exist() -> None:
    described = (WEB / "parameters.ru.js").read_text(encoding="utf-8")

    assert set(re.findall(r"^  (\w+):", described, re.M)) <= PARAMETERS
