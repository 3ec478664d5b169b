"""The dashboard shows figures that there are, and the guide names them all."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from simple_asr.service.metrics import Metrics

REPOSITORY = Path(__file__).parents[2]
DASHBOARD = REPOSITORY / "deploy/grafana.json"
GUIDE = REPOSITORY / "docs/deployment.md"
PARTS = re.compile(r"_(total|bucket|sum|count)$")
FIGURE = re.compile(r"\b(?:asr|process)_\w+")


# Decoders, the parent and webhooks count by themselves, and `Metrics` shows it.
COUNTED_BY_OTHERS = (
    "asr_decoder_deaths",
    "asr_restarts",
    "asr_webhooks_delivered",
    "asr_webhook_failures",
    "asr_webhooks_dead",
)


def figures_there_are() -> set[str]:
    metrics = Metrics()
    for name in COUNTED_BY_OTHERS:
        metrics.count(name, "So many.", lambda: 0)
    text = metrics.exposition().decode()
    return {family.name for family in text_string_to_metric_families(text)}


def test_every_query_of_the_dashboard_asks_for_figures_there_are() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]

    asked = {PARTS.sub("", name) for query in queries for name in FIGURE.findall(query)}

    assert len(asked) > 10
    assert asked - figures_there_are() == set()


def test_the_guide_names_every_figure_of_ours() -> None:
    named = {PARTS.sub("", name) for name in FIGURE.findall(GUIDE.read_text(encoding="utf-8"))}

    assert {name for name in figures_there_are() if name.startswith("asr_")} - named == set()
    assert named - figures_there_are() == set()
