"""What the pages promise is there: links, paths, commands. Addresses outside are not asked."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

ROOT = Path(__file__).parents[2]

REQUIRED = [
    "README.md",
    "README.ru.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "docs/api.md",
    "docs/design.md",
    "docs/operations.md",
    "docs/settings.md",
    "docs/decisions/README.md",
]
if shutil.which("git") is None or not (ROOT / ".git").exists():
    pytest.skip("This is no git checkout: what belongs to the project?", allow_module_level=True)

# Text that would hold only where it was written, in two halves so that this file has none of it.
# Which registry packages come from is for each machine's own configuration to say.
FORBIDDEN = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "npmjs" + ".org",
    "deb.debian" + ".org",
    "archive.ubuntu" + ".com",
]
# Nor does where this checkout stands belong there, unless it stands where the project itself says.
if ROOT not in (Path("/opt/asr"), Path("/app")) and len(ROOT.parts) > 2:
    FORBIDDEN += [str(ROOT), str(ROOT.parent / "shared")]


def project_files() -> list[Path]:
    """Files of the project, also those not committed yet; not what is built, cached or private."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    options = ["--cached", "--others", "--exclude-standard"]
    listing = subprocess.run([*command, *options], cwd=ROOT, check=True, capture_output=True)
    names = listing.stdout.decode().split("\0")
    return sorted(ROOT / name for name in names if name and (ROOT / name).is_file())


FILES = project_files()
PAGES = [path for path in FILES if path.suffix == ".md"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = [link for link in relative_links(page) if not leads_somewhere(page, link)]

    assert broken == []


def relative_links(page: Path) -> list[str]:
    prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", page.read_text("utf-8"), flags=re.S | re.M)
    links = re.findall(r"\]\(([^)\s]+)|^\[[^\]]+\]:\s*(\S+)|(?:src|href)=\"([^\"]+)\"", prose, re.M)
    targets = ["".join(link) for link in links]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return False
    return not heading or heading in anchors(target)


def anchors(page: Path) -> set[str]:
    """Headings as the code host makes anchors of them: small letters, hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.+?)\s*$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Commands and trees ---------------------------------------------------------------------------


def blocks(page: Path, *languages: str) -> list[str]:
    """The page's fenced blocks of these languages; "" is a block that names none."""
    fenced = re.findall(r"^```([^\n]*)\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)
    return [text for language, text in fenced if language.strip() in languages]


@pytest.mark.skipif(shutil.which("bash") is None, reason="There is no bash here.")
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_shell_block_can_be_pasted(page: Path) -> None:
    for block in blocks(page, "bash", "sh", "shell"):
        check = subprocess.run(["bash", "-n"], input=block, check=False, stderr=PIPE, text=True)

        assert check.returncode == 0, f"{block}\n{check.stderr}"


@pytest.mark.parametrize("readme", ["README.md", "README.ru.md"])
def test_the_readme_shows_the_tree_as_it_is(readme: str) -> None:
    trees = [block for block in blocks(ROOT / readme, "", "text") if "src/simple_asr" in block]

    assert len(trees) == 1
    assert [path for path in paths_of_tree(trees[0]) if not (ROOT / path).exists()] == []


def paths_of_tree(tree: str) -> Iterator[Path]:
    """The paths that begin each line; an indented one lies in the folder above it."""
    folders: list[tuple[int, Path]] = []
    for line in tree.splitlines():
        text = line.lstrip(" │├└─")
        indent = len(line) - len(text)
        while folders and folders[-1][0] >= indent:
            folders.pop()
        parent = folders[-1][1] if folders else Path()
        names = [
            column for column in re.split(r"\s{2,}", text) if re.fullmatch(r"\S*[./]\S*", column)
        ]
        yield from (parent / name for name in names)
        if names and names[0].endswith("/"):
            folders.append((indent, parent / names[0]))


# Contributing ---------------------------------------------------------------------------------


def where_to_add() -> list[tuple[str, list[str]]]:
    """Each row of the table: what to add, and the code it names in backticks."""
    table = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \|", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M
    )
    rows = [(what.strip(), re.findall(r"`([^`]+)`", where)) for what, where in table]
    return [(what, code) for what, code in rows if code]


@pytest.mark.parametrize(("what", "code"), where_to_add(), ids=lambda value: str(value)[:30])
def test_the_place_where_one_adds_a_thing_is_there(what: str, code: list[str]) -> None:
    paths = [place(name) for name in code if "." in name or "/" in name]
    tables = [name for name in code if name.isupper()]

    assert paths
    assert [path for path in paths if not path.exists()] == []
    texts = "".join(path.read_text("utf-8") for path in paths if path.is_file())
    assert [table for table in tables if table not in texts] == []


def place(name: str) -> Path:
    """A path of the project, or one inside the package."""
    return ROOT / name if (ROOT / name).exists() else ROOT / "src/simple_asr" / name


# The whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REQUIRED)
def test_a_page_everyone_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).is_file()
    assert (ROOT / name).read_text("utf-8").strip()


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs/decisions"
    index = folder / "README.md"

    decisions = {page.name for page in folder.glob("*.md")} - {index.name}

    assert {link for link in relative_links(index) if "/" not in link} == decisions


@pytest.mark.parametrize("forbidden", FORBIDDEN)
def test_no_file_names_an_address_or_path_of_one_machine(forbidden: str) -> None:
    holders = [name_of(path) for path in FILES if forbidden in path.read_text("utf-8", "ignore")]

    assert holders == []
