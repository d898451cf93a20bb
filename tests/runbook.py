"""Run the procedures of docs/operations.md without systemd, with a replacement of `systemctl`."""

import json
import os
import re
import subprocess
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "operations.md"
PROCEDURES: dict[str, str] = dict(
    re.findall(r"^```sh ([\w-]+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
)

# It starts and stops the program in the unit's ExecStart=, with the unit's Environment=.
_SYSTEMCTL = r"""
await_end() { while grep -qs '^State:.[^Z]' "/proc/$1/status"; do sleep 0.02; done; }
systemctl() {
  case $1 in stop|restart|disable)
    [ ! -e "$RUN/pid" ] || { kill "$(<"$RUN/pid")"; await_end "$(<"$RUN/pid")"; rm "$RUN/pid"; };;
  esac
  case $1 in start|restart|enable)
    : >"$RUN/journal"
    # The variables of the shell are not the service's.
    env -u BIGFIB_STORE $(sed -n 's/^Environment=//p' "$UNIT" \
      | sed "s|%E|$MACHINE/etc|; s|%S|$MACHINE/var/lib|; s|%C|$MACHINE/var/cache|") \
      $(sed -n "s|^ExecStart=/opt|$MACHINE/opt|p" "$UNIT") </dev/null >/dev/null 2>>"$RUN/journal" &
    echo $! >"$RUN/pid"
    until grep -q 'listens on' "$RUN/journal"; do
      kill -0 $! || { cat "$RUN/journal" >&2; rm "$RUN/pid"; return 1; }; sleep 0.02
    done;;
  esac
}
sudo() { shift 2; "$@"; }
"""


class Machine:
    """A directory that stands for the root of a machine with bigfib under systemd.

    Attributes:
        root: The directory.
        log: The state log's path.
    """

    def __init__(self, root: Path, bigfib: Path | None = None) -> None:
        """Create the directories of a system; with ``bigfib``, as after its installation."""
        self.root = root
        self.log = root / "var/lib/bigfib/state.log"
        self.unit = ROOT / "deploy" / "bigfib.service"
        for name in ("opt", "etc/systemd/system", "usr/local/bin", "var/backups", "run"):
            (root / name).mkdir(parents=True)
        # systemd creates these, by ConfigurationDirectory=, StateDirectory= and CacheDirectory=.
        for name in ("etc/bigfib", "var/lib/bigfib", "var/cache/bigfib"):
            (root / name).mkdir(parents=True)
        (root / "etc/bigfib/bigfib.toml").write_text("port = 0\n")
        if bigfib:
            (root / "opt/bigfib/.venv/bin").mkdir(parents=True)
            (root / "opt/bigfib/.venv/bin/bigfib").symlink_to(bigfib)
            (root / "usr/local/bin/bigfib").symlink_to(bigfib)

    def run(self, procedure: str, **variables: str) -> str:
        """Run the commands of a procedure below the machine's root; return their output."""
        return self.shell(PROCEDURES[procedure], **variables)

    def shell(self, commands: str, text: str = "", **variables: str) -> str:
        """Run commands below the machine's root, with ``text`` as input; return their output."""
        below = re.sub(r"(?<![\w./-])/(?=(?:opt|etc|var|usr/local)/)", f"{self.root}/", commands)
        done = subprocess.run(
            ["bash", "-ec", f"{_SYSTEMCTL}\n{below}"],
            cwd=self.root,
            env={
                **os.environ,
                # Compiled modules would take a third of the time of an installation.
                "PIP_NO_COMPILE": "1",
                "PATH": f"{self.root}/usr/local/bin:{os.environ['PATH']}",
                "MACHINE": str(self.root),
                "RUN": str(self.root / "run"),
                "UNIT": str(self.unit),
                **variables,
            },
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
            # Without a terminal, programs read a password from their input.
            start_new_session=True,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def journal(self) -> str:
        """Return the messages of the service since its start."""
        return (self.root / "run/journal").read_text()

    def url(self) -> str:
        """Return the address of the running service."""
        found = re.search(r"listens on (http://\S+);", self.journal())
        assert found
        return found[1]

    def step(self, count: int = 1) -> None:
        """Step the shared sequence of the running service."""
        for _ in range(count):
            self._ask("/api0/next")

    def position(self) -> int:
        """Return the position of the shared sequence, as the service shows it."""
        return int(json.loads(self._ask("/api1/sequences/shared"))["position"])

    def ready(self) -> bool:
        """Return whether the service can make changes."""
        try:
            return bool(self._ask("/readyz"))
        except HTTPError:
            return False

    def _ask(self, path: str) -> bytes:
        with urlopen(f"{self.url()}{path}", timeout=20) as reply:
            body: bytes = reply.read()
            return body
