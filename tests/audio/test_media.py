"""What is kept of a file, whole or damaged, and what is refused."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from simple_asr.audio import media
from simple_asr.audio.decoder_protocol import (
    MIX,
    DecodeLimits,
    DecodeRequest,
    PcmFormat,
    SampleFormat,
)
from simple_asr.errors import (
    EmptyMedia,
    MediaLimitExceeded,
    NoAudioTrack,
    StorageFull,
    TooManyChannels,
    UnreadableMedia,
)
from tests.mutants import Kind, valid_file

NO_LIMITS = DecodeLimits()
SPLIT = DecodeRequest(splits_channels=True)


def decode(
    path: Path, limits: DecodeLimits = NO_LIMITS, request: DecodeRequest = MIX
) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Samples and warnings."""
    spool_file = path.with_suffix(".samples")
    with io.FileIO(path) as source, io.FileIO(spool_file, "wb") as output:
        writer = media.SampleWriter(output, limits, lambda _num_samples: None)
        warnings = media.decode(source, writer, limits, request)
    return np.fromfile(spool_file, dtype=np.int16), warnings


def sine(num_samples: int, rate: int, hertz: float = 440) -> NDArray[np.int16]:
    """A tone at half of full scale."""
    time = np.arange(num_samples) / rate
    return (16_384 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def write_wav(path: Path, samples: NDArray[np.int16], rate: int, channels: int = 1) -> Path:
    """The same samples in each channel."""
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(np.repeat(samples, channels).tobytes())
    return path


def write_channels(path: Path, channels: Sequence[NDArray[np.int16]], rate: int) -> Path:
    """Each channel its own samples; the file does not say what each is."""
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), 2, rate, 0, "NONE", ""))
        file.writeframes(np.stack(channels, axis=1).tobytes())
    return path


def write_encoded(path: Path, codec: str, samples: NDArray[np.int16], rate: int) -> Path:
    """One mono track, coded by `codec`, in the container that the suffix of `path` names."""
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(track, AudioStream)
        frame = AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


def write_matroska(path: Path, tracks: Sequence[bytes | NDArray[np.int16]]) -> Path:
    """MP2 tracks at 16 kHz; bytes are a track of one packet, which is exactly that."""
    with av.open(str(path), "w", format="matroska") as container:
        streams = [container.add_stream("mp2", rate=16_000, layout="mono") for _ in tracks]
        container.start_encoding()
        for stream, content in zip(streams, tracks, strict=True):
            assert isinstance(stream, AudioStream)
            if isinstance(content, bytes):
                packet = av.Packet(content)
                packet.stream, packet.pts, packet.dts = stream, 0, 0
                packet.time_base = Fraction(1, 16_000)
                container.mux(packet)
                continue
            frame = AudioFrame.from_ndarray(content[None], format="s16", layout="mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def damaged(path: Path, start: float, stop: float) -> Path:
    """The file, noise from fraction `start` of it to fraction `stop`."""
    data = bytearray(path.read_bytes())
    first, last = int(start * len(data)), int(stop * len(data))
    data[first:last] = np.random.default_rng(1).bytes(last - first)
    path.write_bytes(data)
    return path


def cut(path: Path, fraction: float) -> Path:
    """The first part of the file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    return path


# What comes out --------------------------------------------------------------------------------


def test_16_khz_mono_passes_through_unchanged(tmp_path: Path) -> None:
    samples = sine(16_001, 16_000)

    decoded, warnings = decode(write_wav(tmp_path / "tone.wav", samples, 16_000))

    assert np.array_equal(decoded, samples)
    assert warnings == ()


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 768_000])
def test_any_rate_becomes_16_khz_of_the_same_length_and_pitch(tmp_path: Path, rate: int) -> None:
    path = write_wav(tmp_path / "tone.wav", sine(2 * rate, rate, hertz=1000), rate)

    decoded, _ = decode(path)

    assert len(decoded) == 32_000
    assert np.argmax(np.abs(np.fft.rfft(decoded))) == 2000  # 1000 Hz, at 2 bins a hertz.


def test_resampling_is_what_pyav_and_the_ffmpeg_command_do(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "tone.wav", sine(44_100, 44_100), 44_100, channels=2)
    resampler = av.AudioResampler("s16", "mono", 16_000)
    with av.open(str(path)) as container:
        frames = [
            *(part for frame in container.decode(audio=0) for part in resampler.resample(frame)),
            *resampler.resample(None),
        ]
    expected = np.concatenate([frame.to_ndarray()[0] for frame in frames])

    decoded, _ = decode(path)

    assert np.array_equal(decoded, expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 9, 16, 64])
def test_the_same_sound_in_many_channels_is_heard_once(tmp_path: Path, channels: int) -> None:
    path = write_wav(tmp_path / "tone.wav", sine(16_000, 16_000), 16_000, channels)

    decoded, _ = decode(path)

    assert len(decoded) == 16_000
    assert 8_000 < np.abs(decoded).max() <= 32_767


def test_antiphase_stereo_is_not_silence(tmp_path: Path) -> None:
    speech = sine(3 * 44_100, 44_100)
    path = write_channels(tmp_path / "antiphase.wav", [speech, -speech], 44_100)

    decoded, _ = decode(path)

    assert len(decoded) == 48_000
    assert np.abs(decoded).max() > 16_000


@pytest.mark.parametrize("channels", [3, 6, 8, 9])
@pytest.mark.parametrize("voice", [0, -1])
def test_a_voice_in_one_of_many_channels_is_heard(
    tmp_path: Path, channels: int, voice: int
) -> None:
    tracks = [np.zeros(32_000, np.int16)] * channels
    tracks[voice] = sine(32_000, 16_000)

    decoded, _ = decode(write_channels(tmp_path / "array.wav", tracks, 16_000))

    assert np.abs(decoded).max() > 1_000


@pytest.mark.parametrize(("rate", "is_heard"), [(192_000, True), (192_001, False)])
def test_channels_of_a_rate_that_only_a_forged_header_has_are_not_compared(
    tmp_path: Path, rate: int, is_heard: bool
) -> None:
    speech = sine(rate, rate)
    path = write_channels(tmp_path / "antiphase.wav", [speech, -speech], rate)

    samples, _ = decode(path)

    assert bool(np.abs(samples).max() > 1000) == is_heard


def test_a_recording_may_change_its_kind_midway(tmp_path: Path) -> None:
    telephone = write_encoded(tmp_path / "a.mp2", "mp2", sine(32_000, 16_000), 16_000)
    studio = write_encoded(tmp_path / "b.mp2", "mp2", sine(96_000, 48_000), 48_000)
    both = tmp_path / "both.mp2"
    both.write_bytes(telephone.read_bytes() + studio.read_bytes())

    decoded, _ = decode(both)

    assert len(decoded) == len(decode(telephone)[0]) + len(decode(studio)[0])
    assert np.abs(decoded[-16_000:]).max() > 10_000


def test_a_single_sample_is_a_recording(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "short.wav", sine(1, 48_000), 48_000)

    decoded, warnings = decode(path)

    assert len(decoded) <= 1
    assert warnings == ()


def test_a_title_in_an_unknown_encoding_does_not_matter(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "titled.wav", sine(1600, 16_000), 16_000)
    title = b"LIST\x0e\0\0\0INFOINAM\x02\0\0\0\xe9\xff"
    path.write_bytes(path.read_bytes() + title)

    assert len(decode(path)[0]) == 1600


def test_progress_is_reported_once_a_minute_of_audio(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "long.wav", np.zeros(16_000 * 185, dtype=np.int16), 16_000)
    reports: list[int] = []
    with io.FileIO(path) as source, io.FileIO(tmp_path / "samples", "wb") as output:
        writer = media.SampleWriter(output, NO_LIMITS, reports.append)
        media.decode(source, writer, NO_LIMITS)

    assert [round(num_samples / 16_000 / 60) for num_samples in reports] == [1, 2, 3]


# Damage ----------------------------------------------------------------------------------------


def test_damage_costs_what_it_hit_and_is_told(tmp_path: Path) -> None:
    path = write_encoded(tmp_path / "tone.mp2", "mp2", sine(160_000, 16_000), 16_000)

    decoded, warnings = decode(damaged(path, 0.5, 0.55))

    assert len(decoded) / 16_000 > 9
    assert np.abs(decoded[-16_000:]).max() > 10_000, "what follows the damage is heard"
    assert len(warnings) == 1
    assert "could not be decoded; the text may have gaps" in warnings[0]


def test_of_a_file_cut_off_the_rest_is_kept_and_it_is_told(tmp_path: Path) -> None:
    path = write_encoded(tmp_path / "tone.flac", "flac", sine(160_000, 16_000), 16_000)

    decoded, warnings = decode(cut(path, 0.5))

    assert 4 < len(decoded) / 16_000 < 6
    assert "The file says it lasts 10.0 s" in warnings[-1]


def write_au(path: Path, claimed_seconds: float, seconds: int) -> Path:
    """Telephone silence, 8000 bytes a second, under a header that claims another length."""
    header = struct.pack(">4s5I", b".snd", 24, int(8000 * claimed_seconds), 1, 8000, 1)
    path.write_bytes(header + b"\xff" * (8000 * seconds))
    return path


def test_a_header_that_claims_more_is_believed_to_be_cut_off(tmp_path: Path) -> None:
    _, warnings = decode(write_au(tmp_path / "cut.au", claimed_seconds=10, seconds=4))

    assert warnings == (
        "The file says it lasts 10.0 s, and 4.0 s could be decoded; it may be cut off or damaged.",
    )


@pytest.mark.parametrize("claimed_seconds", [3, 4, 4.4, 250_000])
def test_a_header_that_rounds_or_lies_is_not_worth_a_warning(
    tmp_path: Path, claimed_seconds: float
) -> None:
    _, warnings = decode(write_au(tmp_path / "whole.au", claimed_seconds, seconds=4))

    assert warnings == ()


def test_a_track_that_does_not_decode_leaves_the_turn_to_the_next(tmp_path: Path) -> None:
    path = write_matroska(tmp_path / "two.mka", [b"this is no frame", sine(16_000, 16_000)])

    decoded, warnings = decode(path)

    assert len(decoded) > 15_000
    assert np.abs(decoded).max() > 10_000
    assert warnings == ("The file has 2 audio tracks; the text is of track 2 alone.",)


def test_a_file_no_track_of_which_decodes_is_refused(tmp_path: Path) -> None:
    path = write_matroska(tmp_path / "none.mka", [b"this is no frame", b"nor is this"])

    with pytest.raises(UnreadableMedia, match="no part of it could be decoded"):
        decode(path)


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"RIFF", b"just a text " * 99, b"\0" * 4096, b"ffconcat version 1.0\nfile a.wav\n"]
)
def test_what_is_not_media_is_refused_with_what_to_send(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "upload.wav"
    path.write_bytes(content)

    with pytest.raises(UnreadableMedia, match=r"not recognised.* Send WAV, MP3, FLAC"):
        decode(path)


def test_a_script_that_libav_would_play_is_not_media(tmp_path: Path) -> None:
    path = tmp_path / "tones.wav"
    path.write_text("-SE\nall: 200+8/50\nNOW all\n+00:00:05 all\n")
    with av.open(str(path)) as container:
        assert container.format.name == "sbg", "it is one that libav knows"

    with pytest.raises(UnreadableMedia, match="not recognised"):
        decode(path)


def test_a_playlist_does_not_read_the_file_it_names(tmp_path: Path) -> None:
    secret = write_wav(tmp_path / "secret.wav", sine(16_000, 16_000), 16_000)
    playlist = tmp_path / "upload.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n")

    with pytest.raises(UnreadableMedia):
        decode(playlist)


def test_a_video_without_sound_is_refused_and_says_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("mpeg4", rate=25)
        track.width, track.height = 32, 32
        container.mux(track.encode(VideoFrame(32, 32, "yuv420p")))
        container.mux(track.encode(None))

    with pytest.raises(NoAudioTrack, match="It has only: video"):
        decode(path)


def test_a_track_without_a_sample_is_refused_as_empty(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "nothing.wav", np.zeros(0, dtype=np.int16), 16_000)

    with pytest.raises(EmptyMedia, match="not one sample"):
        decode(path)


def test_audio_as_long_as_the_limit_passes_and_a_sample_more_does_not(tmp_path: Path) -> None:
    limits = DecodeLimits(max_seconds=2)
    exact = write_wav(tmp_path / "exact.wav", sine(32_000, 16_000), 16_000)
    longer = write_wav(tmp_path / "longer.wav", sine(32_001, 16_000), 16_000)

    assert len(decode(exact, limits)[0]) == 32_000
    with pytest.raises(MediaLimitExceeded, match=r"longer than 2 s.* Split the file"):
        decode(longer, limits)


@pytest.mark.parametrize("rate", [1, 7, 1_999, 768_001])
def test_a_rate_no_recorder_makes_is_refused_before_it_costs(tmp_path: Path, rate: int) -> None:
    path = write_wav(tmp_path / "bomb.wav", sine(15_000, 16_000), rate)

    with pytest.raises(MediaLimitExceeded, match=f"sample rate is {rate} Hz.*2000 to 768000 Hz"):
        decode(path)


def test_more_channels_than_a_studio_has_are_refused(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "wide.wav", sine(1000, 16_000), 16_000, channels=65)

    with pytest.raises(MediaLimitExceeded, match="65 channels; this server takes 1 to 64"):
        decode(path)


def test_decoded_bytes_are_limited_whatever_the_length(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "wide.wav", sine(16_000, 16_000), 16_000, channels=8)

    with pytest.raises(MediaLimitExceeded, match="more than 100000 bytes"):
        decode(path, DecodeLimits(max_raw_bytes=100_000))


def test_a_full_disk_is_the_servers_fault_not_the_files(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "tone.wav", sine(16_000, 16_000), 16_000)
    with io.FileIO(path) as source, io.FileIO("/dev/full", "wb") as full:
        writer = media.SampleWriter(full, NO_LIMITS, lambda _num_samples: None)

        with pytest.raises(StorageFull, match="no disk space"):
            media.decode(source, writer, NO_LIMITS)


# Channel by channel -----------------------------------------------------------------------------


@pytest.mark.parametrize("num_channels", [1, 2, 3, 8])
def test_split_channels_are_interleaved_as_they_were(tmp_path: Path, num_channels: int) -> None:
    channels = [sine(16_000, 16_000, 100 * (index + 1)) for index in range(num_channels)]

    decoded, _ = decode(write_channels(tmp_path / "call.wav", channels, 16_000), request=SPLIT)

    assert np.array_equal(decoded.reshape(-1, num_channels), np.stack(channels, axis=1))


def test_more_channels_than_are_transcribed_separately_are_refused(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "array.wav", sine(1000, 16_000), 16_000, channels=9)

    with pytest.raises(TooManyChannels, match="9 channels; at most 8"):
        decode(path, request=SPLIT)


def test_each_split_channel_counts_as_audio_of_its_own(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "call.wav", sine(16_000, 16_000), 16_000, channels=2)

    decode(path, DecodeLimits(max_seconds=2), SPLIT)
    with pytest.raises(MediaLimitExceeded, match="in all its channels together"):
        decode(path, DecodeLimits(max_seconds=1.9), SPLIT)


# Raw samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample_format", "numpy_type", "full_scale"),
    [
        ("s16le", "<i2", 2**15),
        ("s16be", ">i2", 2**15),
        ("s8", "i1", 2**7),
        ("s32le", "<i4", 2**31),
        ("s32be", ">i4", 2**31),
        ("f32le", "<f4", 1),
        ("f32be", ">f4", 1),
        ("f64le", "<f8", 1),
        ("f64be", ">f8", 1),
    ],
)
def test_raw_samples_are_read_as_they_are_said_to_be(
    tmp_path: Path, sample_format: SampleFormat, numpy_type: str, full_scale: float
) -> None:
    wave_ = sine(16_000, 16_000) / 32_768
    path = tmp_path / "raw"
    path.write_bytes((wave_ * full_scale).astype(numpy_type).tobytes())

    decoded, warnings = decode(path, request=raw(sample_format))

    assert np.abs(decoded / 32_768 - wave_).max() < 0.01
    assert warnings == ()


@pytest.mark.parametrize("sample_format", ["mulaw", "alaw"])
def test_telephone_codings_are_read(tmp_path: Path, sample_format: SampleFormat) -> None:
    path = write_encoded(tmp_path / "call.wav", f"pcm_{sample_format}", sine(8000, 8000), 8000)
    expected, _ = decode(path)
    coded = path.read_bytes()[-8000:]
    path.write_bytes(coded)

    decoded, _ = decode(path, request=raw(sample_format, rate=8000))

    assert np.array_equal(decoded, expected)


@pytest.mark.parametrize("num_channels", [2, 5])
def test_raw_channels_can_be_split(tmp_path: Path, num_channels: int) -> None:
    channels = np.stack([sine(16_000, 16_000, 100 * (i + 1)) for i in range(num_channels)], axis=1)
    path = tmp_path / "raw"
    path.write_bytes(channels.astype("<i2").tobytes())
    pcm = PcmFormat("s16le", 16_000, num_channels)

    decoded, _ = decode(path, request=DecodeRequest(splits_channels=True, pcm=pcm))

    assert np.array_equal(decoded.reshape(-1, num_channels), channels)


def test_a_container_said_to_be_raw_is_noise_and_never_opened(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "tone.wav", sine(1600, 16_000), 16_000)

    decoded, _ = decode(path, request=raw("s16le"))

    assert len(decoded) == 1600 + 44 // 2


def raw(sample_format: SampleFormat, rate: int = 16_000) -> DecodeRequest:
    return DecodeRequest(pcm=PcmFormat(sample_format, rate, 1))


@pytest.mark.parametrize("num_bytes", [100, 254, 422])
def test_sound_that_a_file_says_nothing_of_does_not_cost_the_rest(
    tmp_path: Path, num_bytes: int
) -> None:
    # libav takes it for chunks, with lengths that lead it before the beginning of the file.
    whole = valid_file(Kind("caf", "pcm_s16be"))
    path = tmp_path / "unfinished.caf"
    path.write_bytes(whole + whole[-num_bytes:])

    samples, _ = decode(path)

    assert len(samples) == 16_000
