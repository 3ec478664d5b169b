"""Media of strangers to 16 kHz mono samples, by libav. Runs in decoder processes, nowhere else.

With `resampler.py` the only importer of PyAV. Trusts nothing a file says: not its name, its length,
its rate, nor that what comes after a damaged packet is damaged too.
"""

from __future__ import annotations

import errno
import importlib
import io
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import av
import av.logging
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from simple_asr.audio import SAMPLE_RATE
from simple_asr.audio.decoder_protocol import (
    BYTES_PER_SAMPLE,
    MAX_CHANNELS,
    MAX_RATE,
    MAX_SPLIT_CHANNELS,
    MIN_RATE,
    MIX,
    DecodeLimits,
    DecodeRequest,
    PcmFormat,
)
from simple_asr.audio.resampler import MonoResampler, Resampler, SplitResampler
from simple_asr.errors import (
    EmptyMedia,
    MediaError,
    MediaLimitExceeded,
    NoAudioTrack,
    StorageFull,
    TooManyChannels,
    UnreadableMedia,
)

# What libavformat may recognise. No playlists, session descriptions or scripts: they make it open
# other files and addresses, which a whitelist of protocols alone does not prevent.
DEMUXERS = (
    "wav w64 rf64 mp3 flac ogg mov mp4 m4a 3gp 3g2 mj2 matroska webm aac aiff au caf asf ac3 eac3 "
    "amr amrnb amrwb avi flv mpegts mpeg tta wv voc mp2 dts truehd loas latm"
).split()

# Experimental, or a synthesiser that turns a few bytes into hours of sound.
REFUSED_DECODERS = frozenset({"ffwavesynth", "sonic"})

# Bytes, and microseconds of audio, libavformat may look at before it must know what the file is.
PROBE_SIZE = 5_000_000
MAX_TRACKS = 64

SAMPLES_PER_REPORT = 60 * SAMPLE_RATE
WRITE_BYTES = 65_536

# A header may round its length up, and codecs pad: what is missing below this is no damage.
TOLERATED_SECONDS = 0.5
TOLERATED_SHARE = 0.02
LONGEST_CLAIM_SECONDS = 86_400

# These carry no length: libavformat guesses one from the bit rate, and badly if that varies.
FORMATS_OF_GUESSED_LENGTH = {"aac", "ac3", "amr", "dts", "eac3", "loas", "mp3", "mpeg", "truehd"}

# FFmpegError comes in a dozen classes, and PyAV adds these where a file contradicts itself.
DAMAGE = (av.FFmpegError, ValueError, LookupError)

WHAT_TO_SEND = "Send WAV, MP3, FLAC, M4A, OGG, MP4, AVI or MKV."


@dataclass(slots=True)
class Damage:
    """What a track has lost: packets, all after a point, frames refused for a reason."""

    num_packets: int = 0
    broke_off: bool = False
    refusal: MediaError | None = None


def prepare() -> None:
    """Once per process, before the first file: silences libav, and loads what it loads late."""
    av.logging.set_level(None)
    decoders()
    # PyAV imports a kind of track when a file first has one; a confined process cannot.
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name.endswith(".stream"):
            importlib.import_module(module.name)


def decode(
    media: io.FileIO,
    writer: SampleWriter,
    limits: DecodeLimits,
    request: DecodeRequest = MIX,
) -> tuple[str, ...]:
    """Writes the first audio track that decodes; returns warnings for the caller.

    Raises UnreadableMedia, TooManyChannels, EmptyMedia, NoAudioTrack, MediaLimitExceeded,
    StorageFull.
    """
    failure: MediaError | None = None
    for number in range(MAX_TRACKS):
        media.seek(0)
        with _open(media, request.pcm) as container:
            tracks = container.streams.audio
            if not tracks:
                raise _no_audio(container)
            if number == len(tracks):
                break
            try:
                damage = _decode_track(container, tracks[number], writer, limits, request)
            except (UnreadableMedia, EmptyMedia) as error:
                failure = failure or error
                continue
            return tuple(_warnings(container, number, damage, writer.duration))
    assert failure is not None, "no track was left, so each has failed"
    raise failure


# The container ---------------------------------------------------------------------------------


def _open(media: io.FileIO, pcm: PcmFormat | None) -> InputContainer:
    """The container, its format among DEMUXERS, or raw samples. Raises UnreadableMedia."""
    options = {
        "format_whitelist": ",".join(DEMUXERS) if pcm is None else pcm.sample_format,
        "protocol_whitelist": "none",
        # Video decoders, where most faults of libav are, do not run to describe a track.
        "codec_whitelist": ",".join(decoders()),
        "probesize": str(PROBE_SIZE),
        "analyzeduration": str(PROBE_SIZE),
        "max_streams": str(MAX_TRACKS),
        **({} if pcm is None else _pcm_options(pcm)),
    }
    try:
        return av.open(
            _Nameless(media),
            "r",
            format=None if pcm is None else pcm.sample_format,
            container_options=options,
            metadata_errors="replace",
            io_open=_open_nothing,
        )
    except (*DAMAGE, OSError):
        raise UnreadableMedia(
            "No audio could be read from the file: its format is not recognised, or its header is "
            f"damaged. {WHAT_TO_SEND}"
        ) from None


def _pcm_options(pcm: PcmFormat) -> dict[str, str]:
    # Of more than two channels nobody knows the places: `C` leaves them open.
    layout = {1: "mono", 2: "stereo"}.get(pcm.num_channels, f"{pcm.num_channels}C")
    return {"sample_rate": str(pcm.rate), "ch_layout": layout}


class _Nameless:
    """A file as libavformat is given it: bytes and positions. By a name it would choose formats."""

    def __init__(self, file: io.FileIO) -> None:
        self.read = file.read
        self.tell = file.tell
        self._seek = file.seek

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """-1 for a place that cannot be, as damage has libav seek; it knows how to go on then."""
        try:
            return self._seek(offset, whence)
        except OSError:
            return -1


def _open_nothing(*_reference: object) -> io.FileIO:
    """What a file refers to is not part of it."""
    raise PermissionError("Media may not refer to other files.")


@cache
def decoders() -> tuple[str, ...]:
    """Names of the audio decoders in use."""
    return tuple(sorted(filter(_is_audio_decoder, av.codecs_available - REFUSED_DECODERS)))


def _is_audio_decoder(name: str) -> bool:
    try:
        return av.Codec(name, "r").type == "audio"
    except ValueError:
        return False  # It only encodes.


# A track ---------------------------------------------------------------------------------------


def _decode_track(
    container: InputContainer,
    track: AudioStream,
    writer: SampleWriter,
    limits: DecodeLimits,
    request: DecodeRequest,
) -> Damage:
    """Writes all of a track that decodes. Raises when that is nothing, or over a limit."""
    damage = Damage()
    num_frames = raw_bytes = 0
    make_resampler = _resampler_maker(request, writer)
    resampler: Resampler | None = None
    for frame in _frames(container, track, damage):
        try:
            _check_sound(frame)
            if resampler is None or not resampler.takes(frame):
                if resampler is not None:
                    writer.write(resampler.flush())
                resampler = make_resampler(frame)
        except MediaError as error:
            damage.refusal = error
            damage.num_packets += 1
            continue
        num_frames += 1
        raw_bytes += frame.samples * frame.layout.nb_channels * frame.format.bytes
        if raw_bytes > limits.max_raw_bytes:
            raise MediaLimitExceeded(
                f"The audio takes more than {limits.max_raw_bytes} bytes once decoded, the most "
                "this server takes at once. Split the file, or convert it to 16 kHz mono."
            )
        writer.write(resampler.resample(frame))
    if resampler is not None:
        writer.write(resampler.flush())
    writer.flush()
    if num_frames == 0:
        raise _nothing_decoded(damage)
    return damage


def _frames(container: InputContainer, track: AudioStream, damage: Damage) -> Iterator[AudioFrame]:
    """Decoded frames of a track, over damaged packets, which are counted."""
    codec = track.codec_context
    # The whitelist above is libavformat's; PyAV opens this decoder itself.
    if codec is None or codec.name not in decoders():
        raise UnreadableMedia(
            f"The file's audio is in a coding this server cannot read. {WHAT_TO_SEND}"
        )
    codec.thread_count = 1
    for packet in _packets(container, track, damage):
        yield from _decoded(codec, packet, damage)


def _packets(
    container: InputContainer, track: AudioStream, damage: Damage
) -> Iterator[Packet[AudioStream] | None]:
    """Packets of a track; the last is empty, and the decoder gives out what it held back."""
    try:
        yield from container.demux(track)
    except DAMAGE:
        damage.broke_off = True
        yield None


def _decoded(
    codec: AudioCodecContext, packet: Packet[AudioStream] | None, damage: Damage
) -> list[AudioFrame]:
    """Frames of one packet: none if it is damaged. The next may be whole."""
    try:
        return codec.decode(packet)
    except DAMAGE:
        damage.num_packets += 1
        return []


def _check_sound(frame: AudioFrame) -> None:
    """Raises MediaLimitExceeded for a rate or a number of channels no recorder makes.

    At 1 Hz one frame of a 55-byte file lasts 18 hours, and the resampler would allocate them.
    """
    if not MIN_RATE <= frame.sample_rate <= MAX_RATE:
        raise MediaLimitExceeded(
            f"The sample rate is {frame.sample_rate} Hz; this server takes {MIN_RATE} to "
            f"{MAX_RATE} Hz. Convert the file to 16000 Hz, and send that."
        )
    if not 1 <= frame.layout.nb_channels <= MAX_CHANNELS:
        raise MediaLimitExceeded(
            f"The audio has {frame.layout.nb_channels} channels; this server takes 1 to "
            f"{MAX_CHANNELS}. Mix it down to mono or stereo, and send that."
        )


def _resampler_maker(
    request: DecodeRequest, writer: SampleWriter
) -> Callable[[AudioFrame], Resampler]:
    """Makes a resampler for frames like the one it is given.

    That raises UnreadableMedia if libav cannot convert them, and TooManyChannels.
    """
    first: AudioFrame | None = None

    def make(frame: AudioFrame) -> Resampler:
        nonlocal first
        try:
            if not request.splits_channels:
                return MonoResampler(frame)
            if first is None:
                writer.num_channels = _split_channels(frame)
                first = frame
            return SplitResampler(frame, first.layout.nb_channels, first.layout.name)
        except DAMAGE:
            raise UnreadableMedia(
                f"The audio's {frame.layout.nb_channels} channels cannot be converted. Mix it down "
                "to mono or stereo, and send that."
            ) from None

    return make


def _split_channels(frame: AudioFrame) -> int:
    """How many there are. Raises TooManyChannels."""
    num_channels = frame.layout.nb_channels
    if num_channels > MAX_SPLIT_CHANNELS:
        raise TooManyChannels(
            f"The audio has {num_channels} channels; at most {MAX_SPLIT_CHANNELS} are transcribed "
            "separately. Leave out channels=split, or send fewer channels.",
            field="channels",
        )
    return num_channels


class SampleWriter:
    """Writes samples to the spool file in large pieces, up to the limit, over all channels."""

    def __init__(
        self, file: io.FileIO, limits: DecodeLimits, report: Callable[[int], None]
    ) -> None:
        """`report` is told the number of samples so far, once a minute of audio."""
        self._file = file
        self._limits = limits
        self._report = report
        self.num_channels = 1
        self._num_samples = 0
        self._num_reported = 0
        self._waiting = bytearray()

    @property
    def duration(self) -> float:
        """Seconds written so far."""
        return self._num_samples / SAMPLE_RATE / self.num_channels

    def write(self, pieces: Iterator[bytes]) -> None:
        """Raises MediaLimitExceeded over the limit, StorageFull when there is no space."""
        for piece in pieces:
            self._num_samples += len(piece) // BYTES_PER_SAMPLE
            if self._num_samples > self._limits.max_samples:
                counted = " in all its channels together" if self.num_channels > 1 else ""
                raise MediaLimitExceeded(
                    f"The audio is longer than {self._limits.max_seconds:.10g} s{counted}, the "
                    "most this server takes at once. Split the file."
                )
            self._waiting += piece
            if len(self._waiting) >= WRITE_BYTES:
                self.flush()
        if self._num_samples - self._num_reported >= SAMPLES_PER_REPORT:
            self._num_reported = self._num_samples
            self._report(self._num_samples // self.num_channels)

    def flush(self) -> None:
        """Puts in the file what waits. Raises StorageFull."""
        try:
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StorageFull(
                "The server has no disk space left for decoded audio. Try again later."
            ) from None


# What the caller is told -----------------------------------------------------------------------


def _no_audio(container: InputContainer) -> NoAudioTrack:
    kinds = sorted({stream.type for stream in container.streams})
    found = f" It has only: {', '.join(kinds)}." if kinds else ""
    return NoAudioTrack(f"The file has no audio track.{found} Send a file with sound.")


def _nothing_decoded(damage: Damage) -> MediaError:
    """Why a track came to nothing."""
    if damage.refusal is not None:
        return damage.refusal
    if damage.num_packets or damage.broke_off:
        return UnreadableMedia(
            "The file's audio is damaged: no part of it could be decoded. Send the original "
            "recording, or convert it to WAV or FLAC."
        )
    return EmptyMedia(
        "The file's audio track is empty: it holds not one sample. Check that the recording "
        "worked, and send it again."
    )


def _warnings(
    container: InputContainer, number: int, damage: Damage, duration: float
) -> Iterator[str]:
    """What the caller should know of a file of which `duration` seconds decoded."""
    tracks = container.streams.audio
    if len(tracks) > 1:
        yield f"The file has {len(tracks)} audio tracks; the text is of track {number + 1} alone."
    if damage.num_packets:
        packets = "1 packet" if damage.num_packets == 1 else f"{damage.num_packets} packets"
        yield f"The file is damaged: {packets} could not be decoded; the text may have gaps."
    if damage.broke_off:
        yield f"The file is damaged: nothing could be read after {duration:.1f} s."
        return
    claimed = _claimed_seconds(container, tracks[number])
    if claimed - duration > max(TOLERATED_SECONDS, TOLERATED_SHARE * claimed):
        yield (
            f"The file says it lasts {claimed:.1f} s, and {duration:.1f} s could be decoded; it "
            "may be cut off or damaged."
        )


def _claimed_seconds(container: InputContainer, track: AudioStream) -> float:
    """How long its header says the track is; 0 when it does not say, guesses or is absurd."""
    claimed = 0.0
    if container.format.name in FORMATS_OF_GUESSED_LENGTH:
        return 0.0
    if track.duration is not None and track.time_base is not None:
        claimed = float(track.duration * track.time_base)
    elif container.duration is not None and len(container.streams) == 1:
        # That of the longest track: of this one, if there is no other.
        claimed = container.duration / av.time_base
    return claimed if claimed <= LONGEST_CLAIM_SECONDS else 0.0
