"""Cut the power of one service again and again, and record the history of its clients."""

import random
import signal
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.histories.checker import check
from tests.histories.clients import SHARED, Address, Client, Gone
from tests.histories.history import Recorder
from tests.histories.load import Anything, Owner, Task, work
from tests.histories.model import At
from tests.power.machine import Machine
from tests.service import Service

_CLIENTS = 4
_MOST_REQUESTS = 60


class Refused(AssertionError):
    """The service does not start with what a power cut has left."""


class End(NamedTuple):
    """How a life of the service ends.

    Attributes:
        call: At which of the calls that change the disk, from the start on.
        kind: Which calls count: those of a kind, or syncs of one thing; all if None.
        then: How many calls of any kind later.
        loses: Whether the power fails; otherwise only the service is killed.
        stops: Whether the service is stopped in order, when that call has not come.
    """

    call: int
    kind: str | None = None
    then: int = 0
    loses: bool = True
    stops: bool = False


def any_end(chance: random.Random) -> End:
    """Return an end at the start, under load, around a certain call, or after a stop."""
    loses, stops = chance.random() < 0.85, chance.random() < 0.5
    way = chance.random()
    if way < 0.2:
        return End(chance.randint(1, 20), None, 0, loses, stops)
    if way < 0.7:
        return End(chance.randint(15, 150), None, 0, loses, stops)
    kind = chance.choice(["sync", "write", "rename", "create", "unlink", "truncate"])
    return End(chance.randint(1, 30 if kind in ("sync", "write") else 3), kind, 0, loses, stops)


class Episode:
    """A service on an empty disk that dies again and again, and its clients, which do not.

    Args:
        machine: Where it runs; its disk is formatted.
        seed: What chooses the ends, and what survives them. (What a client meets also depends on
            time.)
        rewrites: Whether the log is being rewritten all the while; None for in every other life.
        durability: That of the service. With ``os`` a power cut may take back acknowledged steps.

    Attributes:
        recorder: What the clients were answered.
        tried: What was done, to be counted.
    """

    def __init__(
        self,
        machine: Machine,
        seed: int,
        *,
        rewrites: bool | None = None,
        durability: str = "fsync",
    ) -> None:
        machine.format()
        self._machine = machine
        self._chance = random.Random(seed)
        self._rewrites = rewrites
        self._durability = durability
        self._anything = Anything(random.Random(seed + 1))
        self._owner = Owner()
        # A power cut ends a boot of the machine, so the service must see another boot id; a file
        # takes the place of the kernel's.
        self._boot = 0
        self.recorder = Recorder()
        self.tried: Counter[str] = Counter()

    @property
    def log(self) -> Path:
        # In directories that the service creates.
        return self._machine.directory / "var" / "lib" / "state.log"

    def check(self) -> None:
        """Return if the history of the clients is linearizable."""
        check(self.recorder.histories(), {SHARED: At(0)})
        self.tried["operations in histories"] += self.recorder.counts()["answered"]
        self.tried["steps retried, and made once"] += self._owner.retries

    def live(self, end: End | None = None) -> None:
        """Start the service, look where everything is, load it until its end, and cut the power.

        Raises:
            AssertionError: it does not start, or ends otherwise, or something is not as it was.
        """
        end = end or any_end(self._chance)
        machine = self._machine
        machine.arm(end.call, kind=end.kind, then=end.then)
        if service := self._start():
            self._use(service, end)
        self.recorder.settle()
        if end.loses:
            self.tried[f"power cuts: {self._where()}"] += 1
            machine.power_on(self._chance)
            self._boot = self._chance.getrandbits(128)
        else:
            self.tried["kills"] += 1
            machine.go_on()

    def _where(self) -> str:
        self._machine.look()
        return f"at a {self._machine.cut_at.split()[0]}" if self._machine.cut_at else "in between"

    def _start(self) -> Service | None:
        """Return the service, or None if it died before it printed where it listens."""
        cache = self._machine.directory.with_name("cache")
        self._machine.boot_id.write_text(f"{uuid.UUID(int=self._boot, version=4)}\n")
        rewrites = self._chance.random() < 0.5 if self._rewrites is None else self._rewrites
        arguments = ["--cache-dir", str(cache), "--durability", self._durability]
        if rewrites:
            arguments += ["--rewrite-bytes", "1000"]
        try:
            return self._machine.serve(arguments, self.log)
        except AssertionError as failure:
            self._machine.look()
            if not self._machine.cut_at:
                raise Refused(str(failure)) from failure
            return None

    def _use(self, service: Service, end: End) -> None:
        """Load the service until it is dead."""
        try:
            address = Address(service.host, service.port)
            observer = Client(0, address, self.recorder)
            with suppress(Gone):
                self._anything.look(observer)
            observer.close()
            if self._chance.random() < 0.1:
                self._machine.limit(self._chance.randint(0, 3000))
            clients = [Client(1 + number, address, self.recorder) for number in range(_CLIENTS)]
            tasks: list[Task] = [self._anything] * _CLIENTS
            if self._durability == "fsync":
                tasks[0] = self._owner
            work(list(zip(clients, tasks, strict=True)), _MOST_REQUESTS)
        finally:
            self._machine.limit(None)
            stops = end.stops and not self._machine.cut_at
            if self._machine.cut_at:
                status = service.wait()
            else:
                status = service.stop(signal.SIGTERM if stops else signal.SIGKILL)
        said = "".join(service.said)
        # The power may still be cut while it stops.
        assert status in (-signal.SIGKILL, 0 if stops else -signal.SIGKILL), (status, said)
        assert "Traceback" not in said
