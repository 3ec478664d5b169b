"""API keys: reads the key file, tells who presents a key, and edits the file for the command line.

When to look at the file again, and which header a key comes in, is the server's business. What the
file may hold and why is in docs/decisions/0004-api-keys.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from simple_asr.errors import InvalidKeyFile, InvalidParameter, MissingKey, WrongKey

logger = logging.getLogger(__name__)

# 16,000 keys of the usual length: a larger file is a mistake, not a key file.
MAX_FILE_BYTES = 1024 * 1024
MAX_KEY_BYTES = 4096
MAX_NAME_CHARACTERS = 64
# What `simple-asr keys list` shows of a key, and the least that names one for `revoke`.
HINT_CHARACTERS = 4

# A file is taken for whole when it stayed the same for this long. Longer than the clock tick that
# stamps files (at most 10 ms on Linux), so that two edits within one tick are told apart.
SETTLE_SECONDS = 0.05
MAX_LOOKS = 20

NEW_FILE_HEADER = (
    "# API keys, one per line; a name may follow after #.\n"
    "# A running server takes changes over by itself.\n"
)

_USUAL_KEY = re.compile(r"[0-9a-fA-F]{64}")
_KEY = re.compile(rf"[!-~]{{1,{MAX_KEY_BYTES}}}")
_BLANKS = " \t\r"
_NO_KEYS = "The key file holds no key. Add one line to it, e.g. with `simple-asr keys add`."
_NO_FILE = "There is no key file. Make one with `simple-asr keys add`."


@dataclass(frozen=True, slots=True)
class Caller:
    """Who presented a key. `name` is for logs; it is never the key.

    `id` is the same for the same key wherever and whenever it is read, so that what a key owns can
    be kept: a digest, from which a random key cannot be had.
    """

    name: str
    id: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """`count` keys are in force. `problem` says why the file was not taken, and what holds now."""

    count: int
    changed: bool
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key as it may be shown: `hint` is its beginning, `line` counts from 1."""

    name: str
    hint: str
    line: int


# The server's side -----------------------------------------------------------------------------


class KeyStore:
    """The keys in force; owner of their digests, which are all that stays in memory.

    The set is one immutable mapping, swapped at once under `_reloading`; `identify` reads it
    without a lock, from any thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boot_secret = secrets.token_bytes(32)
        self._reloading = threading.Lock()
        self._known: Mapping[bytes, tuple[bytes, Caller]] = MappingProxyType({})
        self._seen: _Signature | None = None
        self._logged_problem: str | None = None

    @property
    def count(self) -> int:
        """How many keys are in force."""
        return len(self._known)

    def create_if_missing(self) -> str | None:
        """Makes the file, readable by its owner alone, with one new key, which is returned.

        None when there is a file already, whatever it holds. Raises InvalidKeyFile when the file
        cannot be made.
        """
        _make_folder(self._path)
        with _editing(self._path) as file:
            if file.exists():
                return None
            key = generate_key()
            _replace(file, f"{NEW_FILE_HEADER}{key}\n".encode())
            return key

    def changed_on_disk(self) -> bool:
        """Whether the file is another than the one last read. One `stat`: cheap to ask often."""
        return _signature_at(self._path) != self._seen

    def reload(self) -> ReloadResult:
        """Reads the file now. One that cannot be read, or holds no key, leaves the last good set.

        Takes up to a second while the file is being written: keep it off the event loop. What is
        wrong or unusual with the file goes to the log, without any key.
        """
        with self._reloading:
            self._seen = None
            try:
                reading = _read_settled(self._path)
                self._seen = reading.signature if reading.is_settled else None
                keys = parse_keys(reading.content)
                if not keys:
                    return self._keep_last_good(_NO_KEYS)
            except InvalidKeyFile as error:
                return self._keep_last_good(error.detail)
            return self._accept(keys, reading.mode)

    def identify(self, presented: str | bytes | None) -> Caller:
        """Who presents this key. Raises MissingKey, WrongKey.

        Neither which keys exist nor how near a guess is shows in the time it takes: stored keys are
        found by a keyed digest the caller cannot foresee, and every wrong key takes the same path.
        """
        if not presented:
            raise MissingKey("No API key was sent. Send yours in the header X-API-Key.")
        digest = self._digest(presented)
        known = self._known
        stored, caller = known.get(digest, _NOBODY)
        if hmac.compare_digest(stored, digest):
            return caller
        if not known:
            raise WrongKey(
                "This server has no keys yet. Add one line to the key file, e.g. with "
                "`simple-asr keys add`."
            )
        raise WrongKey(
            "This server does not know this API key. Check it, or ask whoever runs the server."
        )

    def name_of(self, caller_id: str) -> str | None:
        """Of a caller whose key is in force."""
        known = (caller for _, caller in self._known.values() if caller.id == caller_id)
        return next((caller.name for caller in known), None)

    def _digest(self, key: str | bytes) -> bytes:
        # A header's text may hold anything, even half a surrogate pair; no such text is a key.
        octets = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
        # One byte more than any key can have: a longer text cannot match, and costs no more.
        return hmac.digest(self._boot_secret, octets[: MAX_KEY_BYTES + 1], "sha256")

    def _accept(self, keys: Sequence[KeyLine], mode: int) -> ReloadResult:
        known: dict[bytes, tuple[bytes, Caller]] = {}
        for line in keys:
            digest = self._digest(line.key)
            # The first of two equal lines names the key.
            known.setdefault(digest, (digest, Caller(line.name, _caller_id(line.key))))
        changed = known != self._known
        self._known = MappingProxyType(known)
        self._logged_problem = None
        if changed:
            logger.info("API keys in force: %d", len(known))
            _log_what_is_unusual(keys, mode)
        return ReloadResult(len(known), changed)

    def _keep_last_good(self, reason: str) -> ReloadResult:
        consequence = (
            f"The keys read before ({self.count}) stay in force."
            if self.count
            else "Until then every key is refused."
        )
        problem = f"{reason} {consequence}"
        # The watcher tries an unreadable file again and again; once in the log is enough.
        if problem != self._logged_problem:
            logger.warning("%s", problem)
            self._logged_problem = problem
        return ReloadResult(self.count, changed=False, problem=problem)


def _caller_id(key: str) -> str:
    return hashlib.sha256(b"simple-asr caller\0" + key.encode()).hexdigest()


# Compared with the digest of an unknown key; no digest is all zeros but by a chance of 2⁻²⁵⁶.
_NOBODY = (bytes(32), Caller("nobody"))


def _log_what_is_unusual(keys: Sequence[KeyLine], mode: int) -> None:
    unusual = [str(line.line) for line in keys if not _USUAL_KEY.fullmatch(line.key)]
    if unusual:
        logger.warning(
            "The key file holds keys that are not 64 hexadecimal characters, and may be easy to "
            "guess, on line %s. `simple-asr keys generate` makes a strong one.",
            ", ".join(unusual[:10]) + (", …" if len(unusual) > 10 else ""),
        )
    if mode & stat.S_IRWXO:
        logger.warning(
            "The key file can be read or changed by every user of this machine (mode %03o). "
            "`chmod 600` makes it yours alone.",
            mode,
        )


# The file --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One key, its name and its line in the file, counted from 1. Its repr has no key."""

    key: str = field(repr=False)
    name: str
    line: int


def parse_keys(content: bytes) -> tuple[KeyLine, ...]:
    """The keys of a key file, in order, repeated ones included.

    Raises InvalidKeyFile naming the first line that is wrong; a file is taken whole or not at all.
    """
    if len(content) > MAX_FILE_BYTES:
        raise InvalidKeyFile(
            f"The key file is larger than {MAX_FILE_BYTES} bytes. Check that it is the right file."
        )
    text = _decoded(content)
    if text is None or "\0" in text:
        raise InvalidKeyFile("The key file is not UTF-8 text. Save it as plain text in UTF-8.")
    lines = (_parse_line(line, number) for number, line in enumerate(text.split("\n"), start=1))
    return tuple(line for line in lines if line)


def _decoded(content: bytes) -> str | None:
    # Not raised from the handler: a UnicodeDecodeError carries the whole file with it.
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _parse_line(line: str, number: int) -> KeyLine | None:
    line = line.strip(_BLANKS)
    if not line or line.startswith("#"):
        return None
    key, _, comment = line.replace("\t", " ").partition(" ")
    comment = comment.strip()
    if comment and not comment.startswith("#"):
        raise InvalidKeyFile(
            f"Line {number} of the key file holds more than one word. Write one key per line; a "
            "name may follow after #."
        )
    if not _KEY.fullmatch(key):
        raise InvalidKeyFile(
            f"The key on line {number} of the key file has other characters than printable ASCII, "
            f"or more than {MAX_KEY_BYTES}. `simple-asr keys generate` makes a good one."
        )
    return KeyLine(key, _clean_name(comment) or _default_name(key), number)


def _clean_name(comment: str) -> str:
    """A name from a comment, fit for a log line: one line, printable, not long."""
    name = comment.lstrip("#").strip()[:MAX_NAME_CHARACTERS].rstrip()
    return "".join(character if character.isprintable() else "?" for character in name)


def _default_name(key: str) -> str:
    return f"key-{hashlib.sha256(key.encode()).hexdigest()[:6]}"


# Reading ---------------------------------------------------------------------------------------

_Signature = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Reading:
    """One look at the key file: its bytes, and what `stat` said just before they were read."""

    content: bytes = field(repr=False)
    signature: _Signature
    modified_ns: int
    mode: int
    is_settled: bool = True


def _read_settled(path: Path) -> _Reading:
    """The key file once it stays the same, so that nobody's half-written file is taken for whole.

    A file that was renamed into place settles even if another takes its place meanwhile. One that
    never stops changing is read all the same after `MAX_LOOKS`, if its last line is complete: a
    busy writer must not keep a revoked key alive. Raises InvalidKeyFile.
    """
    for _ in range(MAX_LOOKS):
        with _opened(path) as descriptor:
            reading = _read(descriptor)
            if time.time() - reading.modified_ns / 1e9 > SETTLE_SECONDS:
                return reading
            _pause()
            again = _read(descriptor)
        if (again.content, again.modified_ns) == (reading.content, reading.modified_ns):
            return again
    if not again.content.endswith(b"\n"):
        raise InvalidKeyFile("The key file is being written and is not complete yet.")
    return replace(again, is_settled=False)


def _pause() -> None:
    time.sleep(SETTLE_SECONDS)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The key file, open for reading. Symlinks are followed: secrets are mounted as symlinks."""
    try:
        # Non-blocking: opening a FIFO would wait for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise InvalidKeyFile(_NO_FILE) from None
    except OSError as error:
        raise InvalidKeyFile(f"The key file cannot be read: {error.strerror}.") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> _Reading:
    """Reads at most one byte more than a key file may have. Raises InvalidKeyFile."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidKeyFile("The key file is a folder or a device, not a file.")
    content = b""
    try:
        while chunk := os.pread(descriptor, MAX_FILE_BYTES + 1 - len(content), len(content)):
            content += chunk
    except OSError as error:
        raise InvalidKeyFile(f"The key file cannot be read: {error.strerror}.") from None
    return _Reading(content, _signature(status), status.st_mtime_ns, stat.S_IMODE(status.st_mode))


def _signature_at(path: Path) -> _Signature | None:
    """None where there is no file, or none that may be looked at."""
    try:
        return _signature(path.stat())
    except OSError:
        return None


def _signature(status: os.stat_result) -> _Signature:
    # The change time too: it tells an edit that put the modification time back, and a `chmod`.
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


# The command line's side -----------------------------------------------------------------------


def generate_key() -> str:
    """A new key: 256 random bits as 64 hexadecimal characters."""
    return secrets.token_hex(32)


def list_keys(path: Path) -> list[KeyEntry]:
    """Every key in the file, without the keys. Raises InvalidKeyFile."""
    return [_entry(line) for line in parse_keys(_content(path))]


def add_key(path: Path, key: str | None = None, name: str | None = None) -> str:
    """Adds a line with `key`, or a new one, to the file, and returns the key. Makes the file.

    Raises InvalidKeyFile, and InvalidParameter when the key or name cannot be or is there already.
    """
    key = generate_key() if key is None else _checked_key(key)
    name = None if name is None else _checked_name(name)
    _make_folder(path)
    with _editing(path) as file:
        content = _content(file) if file.exists() else NEW_FILE_HEADER.encode()
        _refuse_repeated(parse_keys(content), key, name)
        if content and not content.endswith(b"\n"):
            content += b"\n"
        content += (f"{key}  # {name}\n" if name else f"{key}\n").encode()
        parse_keys(content)
        _replace(file, content)
    return key


def revoke_key(path: Path, name_or_prefix: str) -> KeyEntry:
    """Takes the one key with this name, or beginning so, out of the file, and returns its entry.

    Raises InvalidKeyFile, and InvalidParameter when no key or several match, or it is the last.
    """
    with _editing(path) as file:
        content = _content(file)
        keys = parse_keys(content)
        revoked = _the_one(keys, name_or_prefix)
        if all(line.key == revoked.key for line in keys):
            # A server does not take an empty file: it would go on accepting this very key.
            raise InvalidParameter(
                "This is the only key. Add another with `simple-asr keys add` before revoking it.",
                field="name",
            )
        gone = {line.line for line in keys if line.key == revoked.key}
        lines = enumerate(content.split(b"\n"), start=1)
        _replace(file, b"\n".join(line for number, line in lines if number not in gone))
    return _entry(revoked)


def _content(path: Path) -> bytes:
    with _opened(path) as descriptor:
        return _read(descriptor).content


def _entry(line: KeyLine) -> KeyEntry:
    # Four of 64 characters tell keys apart; four of a short key would give it away.
    shown = line.key[: min(HINT_CHARACTERS, len(line.key) // 4)]
    return KeyEntry(line.name, f"{shown}…", line.line)


def _checked_key(key: str) -> str:
    if not _KEY.fullmatch(key) or key.startswith("#"):
        raise InvalidParameter(
            f"A key is 1 to {MAX_KEY_BYTES} printable ASCII characters without spaces, and does "
            "not begin with #. `simple-asr keys generate` makes a good one.",
            field="key",
        )
    return key


def _checked_name(name: str) -> str:
    if not name or name != _clean_name(name):
        raise InvalidParameter(
            f"A key's name is 1 to {MAX_NAME_CHARACTERS} printable characters on one line, without "
            "spaces around it, and does not begin with #.",
            field="name",
        )
    return name


def _refuse_repeated(keys: Sequence[KeyLine], key: str, name: str | None) -> None:
    for line in keys:
        if line.key == key:
            raise InvalidParameter(
                f"This key is in the file already, on line {line.line}.", field="key"
            )
        if line.name == name:
            raise InvalidParameter(
                f"The key on line {line.line} has this name already. Choose another, or revoke "
                "that key first.",
                field="name",
            )


def _the_one(keys: Sequence[KeyLine], name_or_prefix: str) -> KeyLine:
    """The key meant. No error repeats the text: it may be a key."""
    prefix = name_or_prefix.removesuffix("…")
    named = [line for line in keys if line.name == name_or_prefix]
    beginning = [
        line
        for line in keys
        if line.key == prefix or (len(prefix) >= HINT_CHARACTERS and line.key.startswith(prefix))
    ]
    matches = named or beginning
    if not matches:
        raise InvalidParameter(
            f"No key has this name or begins so ({HINT_CHARACTERS} characters at least). "
            "`simple-asr keys list` shows the names.",
            field="name",
        )
    if len({line.key for line in matches}) > 1:
        lines = ", ".join(str(line.line) for line in matches)
        raise InvalidParameter(
            f"Several keys are meant by this: those on lines {lines}. Give more characters of the "
            "key.",
            field="name",
        )
    return matches[0]


# Writing ---------------------------------------------------------------------------------------


def _make_folder(path: Path) -> None:
    try:
        _behind_symlinks(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidKeyFile(
            f"The folder of the key file cannot be made: {error.strerror}."
        ) from error


@contextlib.contextmanager
def _editing(path: Path) -> Iterator[Path]:
    """The file to change, behind any symlink, while no other `simple-asr` changes it.

    Its folder is what is locked: the file itself is replaced by another.
    """
    try:
        file = _behind_symlinks(path)
        folder = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            # Some network file systems lock no folders; the replacement is atomic all the same.
            with contextlib.suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(folder)
    except FileNotFoundError:
        raise InvalidKeyFile(_NO_FILE) from None
    except OSError as error:
        raise InvalidKeyFile(f"The key file cannot be changed: {error.strerror}.") from error


def _behind_symlinks(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _replace(file: Path, content: bytes) -> None:
    """Puts `content` in the file's place at once: a reader finds the old or the new one, whole."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _keep_owner_and_mode(file, stream.fileno())
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(file.parent)


def _keep_owner_and_mode(file: Path, descriptor: int) -> None:
    """So that the server can still read what root has edited: a new file is the folder owner's."""
    is_new = not file.exists()
    status = (file.parent if is_new else file).stat()
    if is_new and os.geteuid() != 0:
        return
    if not is_new:
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, status.st_uid, status.st_gid)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
