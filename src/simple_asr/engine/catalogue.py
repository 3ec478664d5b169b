"""The models known by name, and where each is published. To add a model, add a row to KNOWN_MODELS.

CTranslate2 conversions of OpenAI's weights (MIT). Revisions, sizes and digests are the hub's own
figures; a model without a digest here is checked against the one the hub states.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from simple_asr.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model on the hub. `revision` None is the head of `main`; `num_bytes` is of `model.bin`."""

    name: str
    repository: str
    num_bytes: int = 0
    aliases: tuple[str, ...] = ()
    revision: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    is_multilingual: bool = True

    @property
    def folder(self) -> str:
        """The name of its folder; the hub allows no `--` in names, so no two are alike."""
        return self.name.replace("/", "--")


def find_model(name: str) -> PublishedModel | None:
    """The row of a name, an alias or a repository of the table; None when there is none."""
    return _BY_REPOSITORY.get(name) or _BY_NAME.get(name.strip().lower())


def known_name(name: str) -> str:
    """The table's name for a name or alias that came with a request; never a path or repository.

    Raises InvalidParameter naming the nearest known name.
    """
    model = _BY_NAME.get(name.strip().lower())
    if model is None:
        raise InvalidParameter(
            f"model: {name[:100]!r} is not a known model. {nearest_name(name)}", field="model"
        )
    return model.name


def nearest_name(name: str) -> str:
    """A sentence with the known name most like `name`, or with all of them."""
    matches = difflib.get_close_matches(name.strip().lower(), _BY_NAME, n=1)
    if matches:
        return f"The nearest known name is {matches[0]!r}."
    return f"Known are {', '.join(KNOWN_MODELS)}."


KNOWN_MODELS: dict[str, PublishedModel] = {
    model.name: model
    for model in (
        PublishedModel(
            "tiny",
            "Systran/faster-whisper-tiny",
            num_bytes=75_538_270,
            revision="d90ca5fe260221311c53c58e660288d3deb8d356",
            sha256={
                "model.bin": "dcb76c6586fc06cbdac6dd21f14cfd129cc4cdd9dce19bf4ffa62e59cbe6e6d1",
            },
        ),
        PublishedModel(
            "tiny.en",
            "Systran/faster-whisper-tiny.en",
            num_bytes=75_537_502,
            revision="0d3d19a32d3338f10357c0889762bd8d64bbdeba",
            sha256={
                "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                "tokenizer.json": (
                    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"
                ),
                "vocabulary.txt": (
                    "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"
                ),
            },
            is_multilingual=False,
        ),
        PublishedModel(
            "base",
            "Systran/faster-whisper-base",
            num_bytes=145_217_532,
            revision="ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
            sha256={
                "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                "tokenizer.json": (
                    "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"
                ),
                "vocabulary.txt": (
                    "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"
                ),
            },
        ),
        PublishedModel(
            "base.en",
            "Systran/faster-whisper-base.en",
            num_bytes=145_216_508,
            revision="3d3d5dee26484f91867d81cb899cfcf72b96be6c",
            sha256={
                "model.bin": "2a166925539a16005f14ff328359f9b9adb9dc4fb631bb3b227526862e93e2ef",
            },
            is_multilingual=False,
        ),
        PublishedModel(
            "small",
            "Systran/faster-whisper-small",
            num_bytes=483_546_902,
            revision="536b0662742c02347bc0e980a01041f333bce120",
            sha256={
                "model.bin": "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671",
            },
        ),
        PublishedModel(
            "small.en",
            "Systran/faster-whisper-small.en",
            num_bytes=483_545_366,
            revision="d1d751a5f8271d482d14ca55d9e2deeebbae577f",
            sha256={
                "model.bin": "62b2a45b05ee59acb4a5341b33ee35e041395d378d418a18acfe4c9e768ee37a",
            },
            is_multilingual=False,
        ),
        PublishedModel(
            "medium",
            "Systran/faster-whisper-medium",
            num_bytes=1_527_906_378,
            revision="08e178d48790749d25932bbc082711ddcfdfbc4f",
            sha256={
                "model.bin": "9b45e1009dcc4ab601eff815b61d80e60ce3fd8c74c1a14f4a282258286b51ae",
            },
        ),
        PublishedModel(
            "medium.en",
            "Systran/faster-whisper-medium.en",
            num_bytes=1_527_904_330,
            revision="a29b04bd15381511a9af671baec01072039215e3",
            sha256={
                "model.bin": "11b220779aea4c6f3ce9d2549c8a95ea869ed84066864b999531ef53e594fe5b",
            },
            is_multilingual=False,
        ),
        PublishedModel(
            "large-v1",
            "Systran/faster-whisper-large-v1",
            num_bytes=3_086_912_962,
        ),
        PublishedModel(
            "large-v2",
            "Systran/faster-whisper-large-v2",
            num_bytes=3_086_912_962,
            revision="f0fe81560cb8b68660e564f55dd99207059c092e",
            sha256={
                "model.bin": "bf2a9746382e1aa7ffff6b3a0d137ed9edbd9670c3b87e5d35f5e85e70d0333a",
            },
        ),
        PublishedModel(
            "large-v3",
            "Systran/faster-whisper-large-v3",
            num_bytes=3_087_284_237,
            aliases=("large",),
            revision="edaa852ec7e145841d8ffdb056a99866b5f0a478",
            sha256={
                "model.bin": "69f74147e3334731bc3a76048724833325d2ec74642fb52620eda87352e3d4f1",
            },
        ),
        PublishedModel(
            "turbo",
            "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
            num_bytes=1_617_884_929,
            aliases=("large-v3-turbo",),
            revision="0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
            sha256={
                "model.bin": "e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da",
            },
        ),
    )
}

_BY_NAME = {name: model for model in KNOWN_MODELS.values() for name in (model.name, *model.aliases)}
_BY_REPOSITORY = {model.repository: model for model in KNOWN_MODELS.values()}
