"""Frames of libav to 16 kHz int16 samples: mixed down to mono, or channel by channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import av
from av.audio.frame import AudioFrame
from av.filter import Graph

from simple_asr.audio import SAMPLE_RATE
from simple_asr.audio.decoder_protocol import BYTES_PER_SAMPLE
from simple_asr.audio.downmix import Downmix

FilterStep = tuple[str, str]
"""A filter of libavfilter, and its options as text."""

_TO_16_KHZ: FilterStep = ("aformat", f"sample_fmts=s16:sample_rates={SAMPLE_RATE}")

MAX_COMPARED_RATE = 192_000
"""Hz: the fastest studio's. Above it are converters' test files and forged headers, and comparing
eight channels of those costs as much again as all the rest of decoding them."""

# The subwoofer's channel. libswresample leaves it out of a mix, and rumble must not stand in for
# one.
_LOW_FREQUENCY = ("LFE", "LFE2")


class Resampler(Protocol):
    """Frames of one kind in, samples out. A recording may change its kind; each needs its own."""

    def takes(self, frame: AudioFrame) -> bool:
        """Whether `frame` is of this resampler's kind."""
        ...

    def resample(self, frame: AudioFrame) -> Iterator[bytes]:
        """What is ready of the output once `frame` is in: int16, interleaved."""
        ...

    def flush(self) -> Iterator[bytes]:
        """The rest of the output; the last call."""
        ...


class MonoResampler:
    """To mono as `ffmpeg -f s16le -ac 1 -ar 16000`, except where that would be silence.

    Above MAX_COMPARED_RATE it is that mix always. Channels whose places libav does not know are
    mixed evenly.
    """

    def __init__(self, frame: AudioFrame) -> None:
        """For frames like `frame`. Raises FFmpegError or ValueError where libav takes none such."""
        self._kind = _kind(frame)
        self._mix = _mono_graph(frame)
        self._channels: _Graph | None = None
        num_channels = frame.layout.nb_channels
        if num_channels > 1 and frame.sample_rate <= MAX_COMPARED_RATE:
            self._channels = _Graph(frame, [_TO_16_KHZ])
            names = [channel.name for channel in frame.layout.channels]
            candidates = [i for i, name in enumerate(names) if name not in _LOW_FREQUENCY]
            self._downmix = Downmix(num_channels, candidates)

    def takes(self, frame: AudioFrame) -> bool:
        return _kind(frame) == self._kind

    def resample(self, frame: AudioFrame) -> Iterator[bytes]:
        mix = self._mix.push(frame)
        if self._channels is None:
            yield mix
        else:
            yield from self._downmix.add(mix, self._channels.push(frame))

    def flush(self) -> Iterator[bytes]:
        mix = self._mix.push(None)
        if self._channels is None:
            yield mix
        else:
            yield from self._downmix.add(mix, self._channels.push(None))
            yield from self._downmix.flush()


class SplitResampler:
    """Every channel by itself, interleaved, always as many as the recording began with."""

    def __init__(self, frame: AudioFrame, num_channels: int, layout: str) -> None:
        """For frames like `frame`, which come out in `layout`. Raises as MonoResampler does."""
        self._kind = _kind(frame)
        steps = [_TO_16_KHZ]
        if frame.layout.nb_channels != num_channels:
            steps.insert(0, ("aformat", f"channel_layouts={layout}"))
        self._graph = _Graph(frame, steps)

    def takes(self, frame: AudioFrame) -> bool:
        return _kind(frame) == self._kind

    def resample(self, frame: AudioFrame) -> Iterator[bytes]:
        yield self._graph.push(frame)

    def flush(self) -> Iterator[bytes]:
        yield self._graph.push(None)


def _kind(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _mono_graph(frame: AudioFrame) -> _Graph:
    name, options = _TO_16_KHZ
    try:
        return _Graph(frame, [(name, f"{options}:channel_layouts=mono")])
    except (av.FFmpegError, ValueError):
        num_channels = frame.layout.nb_channels
        shares = "+".join(f"{1 / num_channels:.9f}*c{index}" for index in range(num_channels))
        return _Graph(frame, [("pan", f"mono|c0={shares}"), _TO_16_KHZ])


class _Graph:
    """A chain of filters, without PyAV's idle thread for every core of the machine."""

    def __init__(self, frame: AudioFrame, steps: Sequence[FilterStep]) -> None:
        """For frames like `frame`. Raises FFmpegError or ValueError where they cannot be taken."""
        self._graph = Graph()
        self._graph.threads = 1
        last = self._graph.add(
            "abuffer",
            sample_fmt=frame.format.name,
            channel_layout=frame.layout.name,
            sample_rate=str(frame.sample_rate),
            time_base=f"1/{frame.sample_rate}",
        )
        for name, options in (*steps, ("abuffersink", "")):
            following = self._graph.add(name, options)
            last.link_to(following)
            last = following
        self._graph.configure()

    def push(self, frame: AudioFrame | None) -> bytes:
        """What is ready once `frame` is in; None is the end."""
        if frame is not None:
            # Samples follow each other. Timestamps, which may be anything, stay outside.
            frame.pts = None
        self._graph.push(frame)
        return b"".join(self._output())

    def _output(self) -> Iterator[bytes]:
        while True:
            try:
                frame = self._graph.pull()
            except (BlockingIOError, av.EOFError):
                return
            assert isinstance(frame, AudioFrame), "an audio graph yields audio"
            # A plane is padded beyond its samples.
            num_bytes = frame.samples * frame.layout.nb_channels * BYTES_PER_SAMPLE
            yield bytes(frame.planes[0])[:num_bytes]
