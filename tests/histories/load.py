"""What clients do: any request, or the same step until it is known to be made."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.histories.clients import SHARED, Client, Gone
from tests.histories.model import Status

Task = Callable[[Client], None]
"""One action of a client; it raises `Gone` if its outcome is unknown."""

_MOST = 6


class Anything:
    """Any request, of the shared sequence or of private ones that all clients share.

    Attributes:
        sequences: The private sequences, but for those that are known to be deleted.
    """

    def __init__(self, randomness: random.Random) -> None:
        self._chance = randomness
        self._lock = threading.Lock()
        self.sequences: list[str] = []

    def __call__(self, client: Client) -> None:
        """Send one request, or read a position and send a request that depends on it."""
        with self._lock:
            kind = self._chance.random()
            sequence = self._chance.choice([SHARED, *self.sequences])
        if sequence != SHARED:
            self._private(client, sequence, kind)
        elif kind < 0.1 and len(self.sequences) < _MOST:
            if created := client.create():
                with self._lock:
                    self.sequences.append(created)
        else:
            self._shared(client, kind)

    def _shared(self, client: Client, kind: float) -> None:
        if kind < 0.6:
            client.next()
        elif kind < 0.7:
            client.previous()
        elif kind < 0.8:
            client.current()
        elif kind < 0.9:
            client.step(SHARED, 5 if kind < 0.85 else -2)
        elif kind < 0.98:
            client.read(SHARED)
        else:
            client.put(SHARED, 10)

    def _private(self, client: Client, sequence: str, kind: float) -> None:
        if kind < 0.4:
            client.step(sequence, 1 if kind < 0.3 else -1)
            return
        reply = client.read(sequence)
        seen = reply.place if reply else None
        if reply and not seen:
            with self._lock:
                self.sequences = [one for one in self.sequences if one != sequence]
        elif not seen:
            pass
        # Others may have moved it since: then it is refused.
        elif kind < 0.6:
            client.step(sequence, 1 if kind < 0.5 else -1, seen[0])
        elif kind < 0.8:
            client.step(sequence, 1 if kind < 0.7 else -1, *seen)
        elif kind < 0.9:
            client.put(sequence, round(1000 * kind), *(seen if kind < 0.85 else ()))
        elif kind < 0.95:
            client.delete(sequence, *(seen if kind < 0.93 else ()))

    def look(self, client: Client) -> None:
        """Read the positions of all sequences."""
        client.current()
        for sequence in list(self.sequences):
            client.read(sequence)


class NotOnce(AssertionError):
    """A step was lost, or made twice, or made too early."""


class Owner:
    """Steps of a sequence, each of them made once at most.

    A step whose reply is lost is sent again with the same ``If-Match``, position and version, until
    there is an answer. If nobody else changes the sequence, each is made exactly once.

    Attributes:
        sequence: Its sequence, empty before it is created.
        steps: How many are known to be made.
        retries: How many of these were sent more than once.
    """

    def __init__(self, *, alone: bool = True) -> None:
        self._alone = alone
        self.sequence = ""
        self._may_be_made = False
        self.steps = self.retries = 0
        self._at: tuple[int, int | None] = 0, None

    def __call__(self, client: Client) -> None:
        """Send one request.

        Raises:
            NotOnce: the reply shows something else than one step.
        """
        if not self.sequence:
            if created := client.create():
                reply = client.read(created)
                assert reply
                assert reply.place
                self._at, self.sequence = reply.place, created
            return
        sent_before, self._may_be_made = self._may_be_made, True
        reply = client.step(self.sequence, 1, *self._at)
        if reply is None:
            self._may_be_made = sent_before
            return
        if not reply.place:
            raise NotOnce(f"after {self.steps} steps the sequence is gone: {reply}")
        before, self._at = self._at, reply.place
        done = reply.status is Status.DONE
        if (done or self._alone) and (self._at[0] != before[0] + 1 or not (done or sent_before)):
            raise NotOnce(f"after {self.steps} steps, this one sent before: {sent_before}: {reply}")
        self.steps += done or self._alone
        self.retries += sent_before
        self._may_be_made = False

    def push_back(self, client: Client) -> None:
        """Step its sequence back, as another client that knows it."""
        if self.sequence:
            client.step(self.sequence, -1)


class Worker(threading.Thread):
    """A client that works until the service is gone, or until it is told to stop.

    Attributes:
        failure: What it found to be wrong.
    """

    def __init__(self, client: Client, task: Task, most: int = 0) -> None:
        """Prepare the client.

        Args:
            client: Who is to work.
            task: What it does again and again.
            most: How often. 0 for until `stop`: it then goes on when the service has gone.
        """
        super().__init__()
        self._client = client
        self._task = task
        self._most = most
        self._stopping = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            if self._most:
                with suppress(Gone):
                    for _ in range(self._most):
                        self._task(self._client)
            while not self._most and not self._stopping.wait(self._client.retry_after):
                with suppress(Gone):
                    self._task(self._client)
        except Exception as failure:  # Any error, for the thread that waits for this one.
            self.failure = failure
        finally:
            self._client.close()

    def stop(self) -> None:
        self._stopping.set()


@contextmanager
def working(clients: list[tuple[Client, Task]], most: int = 0) -> Iterator[None]:
    """Run clients at the same time, each a number of times or until the end of the block."""
    workers = [Worker(client, task, most) for client, task in clients]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        if not most:
            for worker in workers:
                worker.stop()
        for worker in workers:
            worker.join()
    for worker in workers:
        if worker.failure:
            raise worker.failure


def work(clients: list[tuple[Client, Task]], most: int) -> None:
    """Run clients at the same time, until the service is gone or enough is done."""
    with working(clients, most):
        pass
