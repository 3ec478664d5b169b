"""Which model runs on what, as settings ask and as the machine allows."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from simple_asr import assembly
from simple_asr.engine.fake_hub import FakeHub
from simple_asr.engine.models import DownloadProgress
from simple_asr.errors import ConfigurationError, ModelUnavailable
from simple_asr.settings import Settings


def settings(models_root: Path, **values: Any) -> Settings:
    given = {"model_download_root": models_root, "model_device": "cpu", **values}
    return Settings(_env_file=None, **given)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "num_gpus", lambda: 0)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "num_gpus", lambda: 1)


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(("wanted", "chosen"), [("cuda", "cuda"), ("auto", "cuda"), ("cpu", "cpu")])
def test_a_gpu_is_used_unless_the_cpu_is_asked_for(
    models_root: Path, wanted: str, chosen: str
) -> None:
    assert assembly.choose_device(settings(models_root, model_device=wanted)) == chosen


@pytest.mark.usefixtures("no_gpu")
def test_cuda_without_a_gpu_is_the_cpu_with_a_warning(
    models_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    device = assembly.choose_device(settings(models_root, model_device="cuda"))

    assert device == "cpu"
    assert "no GPU can be used" in caplog.text


@pytest.mark.usefixtures("no_gpu")
def test_auto_without_a_gpu_is_the_cpu_without_a_word(
    models_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert assembly.choose_device(settings(models_root, model_device="auto")) == "cpu"
    assert not caplog.records


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("wanted", ["cuda", "auto"])
def test_a_required_gpu_that_is_missing_is_refused(models_root: Path, wanted: str) -> None:
    with pytest.raises(ConfigurationError, match="REQUIRE_GPU"):
        assembly.choose_device(settings(models_root, model_device=wanted, require_gpu=True))


@pytest.mark.weights
def test_when_the_model_cannot_be_had_the_fallback_is_served_with_the_reason(
    models_root: Path, base_model: Path
) -> None:
    loaded = assembly.load_model(settings(models_root, default_model="turbo", hf_hub_offline=True))

    assert loaded.backends[0].info.name == "base"
    assert loaded.backends[0].info.device == "cpu"
    assert "turbo" in loaded.reason
    loaded.backends[0].close()


def test_without_a_fallback_a_model_that_cannot_be_had_is_an_error(models_root: Path) -> None:
    offline = settings(models_root, default_model="turbo", fallback_model="", hf_hub_offline=True)

    with pytest.raises(ModelUnavailable, match="turbo"):
        assembly.load_model(offline)


@pytest.mark.weights
def test_a_model_of_the_hub_is_fetched_with_visible_progress(
    tmp_path: Path, base_model: Path
) -> None:
    seen: list[DownloadProgress] = []
    with FakeHub() as hub:
        hub.publish(
            "somebody/whisper-base",
            {file.name: file.read_bytes() for file in base_model.iterdir() if file.is_file()},
        )
        chosen = settings(tmp_path, default_model="somebody/whisper-base", hf_endpoint=hub.endpoint)

        loaded = assembly.load_model(chosen, seen.append)

    assert loaded.backends[0].info.name == "somebody/whisper-base"
    assert max(seen, key=lambda p: p.bytes_total).file == "model.bin"
    assert any(p.bytes_done == p.bytes_total for p in seen)
    loaded.backends[0].close()


def test_a_spool_that_cannot_be_made_is_told_with_its_variable(
    models_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ConfigurationError, match="SPOOL_DIR"):
        assembly.build_transcriber(settings(models_root, spool_dir=tmp_path / "file" / "spool"))


@pytest.mark.weights
def test_of_a_folder_given_as_a_path_only_the_name_is_told(
    base_model: Path, tmp_path: Path
) -> None:
    chosen = settings(base_model.parent, default_model=str(base_model), spool_dir=tmp_path)

    transcriber = assembly.build_transcriber(chosen)
    loaded = assembly.load_model(chosen)

    assert transcriber.model_state.requested == base_model.name
    assert loaded.backends[0].info.name == base_model.name
    transcriber.close()
    loaded.backends[0].close()


@pytest.mark.parametrize(
    "values",
    [
        {"webhook_url": "https://example.com/hook?token=xyzzy"},
        {"webhook_url": "http://127.1/xyzzy", "webhook_secret": f"whsec_{32 * 'A'}"},
        {"webhook_secret": "xyzzy"},
    ],
)
def test_webhooks_that_cannot_work_stop_the_start_without_their_secrets(
    models_root: Path, values: dict[str, str]
) -> None:
    chosen = settings(models_root, **values)

    with pytest.raises(ConfigurationError, match="WEBHOOK_") as refused:
        assembly.build_webhooks(chosen, assembly.build_outgoing(chosen))

    assert "xyzzy" not in refused.value.detail


def test_a_store_of_files_whose_library_is_missing_stops_the_start(
    models_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules, "simple_asr.service.s3_files", raising=False)
    chosen = settings(models_root, job_files_url="s3://talks")

    with pytest.raises(ConfigurationError, match=r"simple-asr-server\[s3\]"):
        assembly.open_job_files(chosen, tmp_path)


def test_the_process_is_tuned_before_the_model_has_a_thread_to_load_it(
    models_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned_in: list[str] = []
    monkeypatch.setattr(assembly, "tune", lambda: tuned_in.append(threading.current_thread().name))

    transcriber = assembly.build_transcriber(settings(models_root))

    transcriber.close()
    assert tuned_in == [threading.current_thread().name]
