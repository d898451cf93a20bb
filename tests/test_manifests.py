"""The manifests for Compose and Kubernetes are valid by their schemas, and fit the service."""

import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.service import Serve

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
KUBERNETES = sorted(DEPLOY.glob("kubernetes*.yaml"))
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))

OLDEST = "1.30"
"""The first Kubernetes with all that the manifests use, by default."""


def file_name(path: object) -> str:
    return path.name if isinstance(path, Path) else str(path)


def resources(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def pods() -> Iterator[dict[str, Any]]:
    for path in KUBERNETES:
        for resource in resources(path):
            if "template" in resource["spec"]:
                yield resource["spec"]["template"]["spec"]


def containers() -> Iterator[Any]:
    """Yield the arguments, environment and probed paths of each container of bigfib, by name."""
    for path in COMPOSE:
        for name, service in yaml.safe_load(path.read_text())["services"].items():
            if service["image"] == "bigfib":
                environment = service.get("environment", {})
                yield pytest.param(
                    service.get("command"), environment, [], id=f"{path.stem}-{name}"
                )
    for pod in pods():
        for container in pod["containers"]:
            environment = {variable["name"]: "" for variable in container.get("env", [])}
            paths = [
                container[f"{kind}Probe"]["httpGet"]["path"]
                for kind in ("startup", "liveness", "readiness")
                if f"{kind}Probe" in container
            ]
            yield pytest.param(
                container.get("args"), environment, paths, id=f"kubernetes-{container['name']}"
            )


def check(schema: str, path: Path) -> "subprocess.CompletedProcess[str]":
    # It contains the schemas, and needs no network.
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    return subprocess.run([*command, path], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("schema", "path"),
    [("compose-spec", path) for path in COMPOSE]
    + [("github-workflows", path) for path in WORKFLOWS],
    ids=file_name,
)
def test_file_is_valid_and_a_misspelled_key_is_not(schema: str, path: Path, tmp_path: Path) -> None:
    checked = check(schema, path)
    assert checked.returncode == 0, checked.stdout
    misspelled = tmp_path / path.name
    misspelled.write_text(re.sub("^( +)(image|runs-on):", r"\1\2s:", path.read_text(), flags=re.M))
    assert check(schema, misspelled).returncode == 1


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("path", KUBERNETES, ids=file_name)
def test_kubernetes_resource_is_valid_and_with_an_unknown_key_is_not(
    path: Path, version: str
) -> None:
    for resource in resources(path):
        kubernetes_validate.validate(resource, version, strict=True)
        wrong = copy.deepcopy(resource)
        wrong["spec"]["unknown"] = 1
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, version, strict=True)


def test_pods_run_as_the_user_of_the_image_without_privileges() -> None:
    (user,) = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    seen = 0
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == int(user)
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        # They would set BIGFIB_PORT to an address.
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            seen += 1
    assert seen == 3


def test_compose_runs_without_privileges() -> None:
    for path in COMPOSE:
        for service in yaml.safe_load(path.read_text())["services"].values():
            if service["image"] == "bigfib":
                assert service["read_only"]
                assert service["cap_drop"] == ["ALL"]
                assert service["security_opt"] == ["no-new-privileges:true"]


def test_services_have_the_limits_of_the_unit() -> None:
    unit = (DEPLOY / "bigfib.service").read_text()
    (memory,) = re.findall(r"^MemoryMax=(\d+)M$", unit, re.MULTILINE)
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    for pod in pods():
        (container,) = pod["containers"]
        if "livenessProbe" not in container:
            continue
        assert container["resources"]["limits"]["memory"] == f"{memory}Mi"
        before = (
            container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        )
        assert pod["terminationGracePeriodSeconds"] == before + int(stop)
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["bigfib"]
    assert compose["mem_limit"] == f"{memory}m"
    assert compose["stop_grace_period"] == f"{stop}s"


def test_volumes_are_those_of_the_image() -> None:
    (declared,) = re.findall(r"^VOLUME \[(.*)\]$", DOCKERFILE, re.MULTILINE)
    volumes = set(re.findall('"(.*?)"', declared))
    (single,) = (pod for pod in pods() if len(pod["containers"][0].get("volumeMounts", [])) == 2)
    assert {mount["mountPath"] for mount in single["containers"][0]["volumeMounts"]} == volumes
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["bigfib"]
    assert {volume.partition(":")[2] for volume in compose["volumes"]} == volumes


@pytest.mark.parametrize(("arguments", "environment", "paths"), [*containers()])
def test_container_starts_and_its_probes_are_answered(
    arguments: list[str] | None,
    environment: dict[str, str],
    paths: list[str],
    serve: Serve,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, database if name == "BIGFIB_STORE" else value)
    # The program that the image runs without arguments.
    arguments = arguments or ["serve"]
    if arguments[0] != "serve":
        subprocess.run([sys.executable, "-m", "bigfib", *arguments], check=True, timeout=60)
        return
    store = ["--store", database] if "BIGFIB_STORE" in environment else []
    service = serve(*arguments[1:], *store)
    assert not [line for line in service.said if "BIGFIB_" in line]
    assert service.value("next") == 1
    for path in paths:
        assert service.ask(path)[0].status == 200
