"""The image of the Dockerfile, built by its own steps below a directory if there is no builder."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.postgres import free_port
from tests.service import TIMEOUT, until

ROOT = Path(__file__).parent.parent
OF_THE_IMAGE = re.compile(r"/(?=opt/bigfib|var/(?:lib|cache)|etc)")


def steps(root: Path) -> list[tuple[str, str]]:
    """Return the name and the rest of each instruction, with the image's ``/`` below ``root``."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = OF_THE_IMAGE.sub(f"{root}/", text.replace("\\\n", "")).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if rest]


def copy(sources: list[str], target: Path) -> None:
    """Copy the files of the repository that ``.dockerignore`` lets a builder see."""
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{source}" for source in sources} <= set(ignore)
    hidden = [Path(line).name for line in ignore if line[0] not in "#!"]
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns(*hidden[1:]))
        else:
            shutil.copy(ROOT / source, target)


@pytest.mark.campaign
def test_image_built_by_its_steps_serves_and_is_healthy(
    tmp_path: Path, require: Callable[[str], str]
) -> None:
    require("cc")
    # Compiled modules would take a third of the time.
    environment = {"PATH": os.environ["PATH"], "HOME": str(Path.home()), "PIP_NO_COMPILE": "1"}
    directory = tmp_path
    last = {}
    for name, rest in steps(tmp_path):
        last[name] = rest
        if name == "WORKDIR":
            directory = Path(rest)
            directory.mkdir(parents=True, exist_ok=True)
        elif name == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            copy(sources, directory / target)
        elif name == "RUN" and rest.startswith("make"):
            subprocess.run(["sh", "-ec", rest], cwd=directory, env=environment, check=True)
        elif name == "ENV":
            values = dict(pair.split("=", 1) for pair in shlex.split(rest))
            environment |= values | {"PATH": values["PATH"].replace("$PATH", environment["PATH"])}
    port = free_port()
    # On loopback only, outside a container.
    environment |= {"BIGFIB_PORT": str(port), "BIGFIB_HOST": "127.0.0.1"}
    command = json.loads(last["ENTRYPOINT"]) + json.loads(last["CMD"])
    check = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])

    def is_healthy() -> bool:
        return subprocess.run(check, env=environment, capture_output=True).returncode == 0

    with subprocess.Popen(
        command, cwd=directory, env=environment, stderr=subprocess.PIPE, text=True
    ) as service:
        try:
            until(is_healthy)
            with urlopen(f"http://127.0.0.1:{port}/api0/next", timeout=TIMEOUT) as reply:
                assert reply.read() == b'{"value":"1","status":"200"}'
        finally:
            service.send_signal(signal.Signals[last["STOPSIGNAL"]])
            said = service.communicate(timeout=TIMEOUT)[1]
    assert service.returncode == 0, said
    assert re.search("kernel: (AVX2|portable)", said)
    written = sorted(one for one in (tmp_path / "var").rglob("*") if one.is_file())
    assert tmp_path / "var/lib/bigfib/state.log" in written
    # psycopg is installed for the shared store.
    assert list(directory.glob(".venv/lib/python*/site-packages/psycopg"))
