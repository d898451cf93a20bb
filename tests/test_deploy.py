"""The dashboard and alerts in ``deploy/`` use only metrics that exist."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service import Serve

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD, ALERTS = DEPLOY / "grafana.json", DEPLOY / "alerts.yml"

_NAME = re.compile(r"\b(?:bigfib|process)_[a-z_]+")
_LABEL = re.compile(r"\{\{(\w+)\}\}|by \(([\w, ]+)\)")

# Prometheus itself adds these labels to each sample.
OF_THE_TARGET = {"job", "instance"}


@pytest.fixture
def told(serve: Serve) -> dict[str, set[str]]:
    """The labels of each sample that a service has exported, by its name."""
    service = serve()
    service.value("next")
    told: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(service.ask("/metrics")[1].decode()):
        for sample in family.samples:
            told.setdefault(sample.name, set()).update(sample.labels)
    return told


def targets() -> list[dict[str, Any]]:
    dashboard = json.loads(DASHBOARD.read_text())
    return [target for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_dashboard_uses_only_exported_metrics(told: dict[str, set[str]]) -> None:
    assert len(targets()) > 20
    for target in targets():
        expression = target["expr"]
        names = _NAME.findall(expression)
        assert names, expression
        for name in names:
            assert name in told, expression
            for groups in _LABEL.findall(f"{expression} {target['legendFormat']}"):
                for label in ",".join(groups).replace(" ", "").strip(",").split(","):
                    assert label in told[name] | OF_THE_TARGET, (expression, label)


def test_dashboard_shows_every_exported_metric(told: dict[str, set[str]]) -> None:
    shown = {name for target in targets() for name in _NAME.findall(target["expr"])}
    base = re.compile("_(bucket|sum|count)$")
    families = {base.sub("", name) for name in told if name.startswith("bigfib_")}
    assert families - {base.sub("", name) for name in shown} == {"bigfib_build_info"}


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))


def test_alerts_use_only_exported_metrics(told: dict[str, set[str]]) -> None:
    names = _NAME.findall(
        "\n".join(re.findall(r"expr: (.*?)\n +(?:for|annotations):", ALERTS.read_text(), re.DOTALL))
    )
    assert len(names) >= 4
    assert set(names) <= set(told)


def test_container_health_check_uses_its_port(serve: Serve) -> None:
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text()
    check = re.search(r"^HEALTHCHECK [^\[]*CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert check
    _, *arguments = json.loads(check[1])
    service = serve()

    def status(port: int) -> int:
        environ = {**os.environ, "BIGFIB_PORT": str(port)}
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environ, capture_output=True, check=False).returncode

    assert status(service.port) == 0
    service.stop(signal.SIGTERM)
    assert status(service.port) == 1


def test_alerts_are_valid_rules(require: Callable[[str], str]) -> None:
    promtool = require("promtool")
    checked = subprocess.run(
        [promtool, "check", "rules", str(ALERTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS: 6 rules found" in checked.stdout
