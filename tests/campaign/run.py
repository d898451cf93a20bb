"""Run the trials of the campaign, and check every reply."""

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from functools import cache
from hashlib import sha256
from typing import Final

from flint import fmpz

from tests.campaign.client import Address, Broken, Client, Gone, Reply
from tests.campaign.trials import (
    LARGE,
    OWN,
    SEQUENCE,
    START,
    STEP,
    VICTIM,
    How,
    Leave,
    Request,
    Split,
    Trial,
    When,
    encoded,
    refused_in_pieces,
)

CONCURRENT: Final = 48
"""Trials at a time, so that one may get memory that another has freed."""

_BYSTANDERS: Final = 4

# After this many seconds without a byte, none will come; replies to valid requests get `TIMEOUT`.
_SILENCE: Final = 0.25

_ID: Final = re.compile(rb'"id":"([0-9a-f]{32})"|/api1/sequences/([0-9a-f]{32})')

# Headers and bodies that never change while the service runs.
_FIXED: Final = re.compile(rb"GET /(api1/terms|openapi.json| |nowhere)")


class Own:
    """A sequence that one connection at a time steps.

    Attributes:
        id: Its id.
        position: Where the last reply has it.
        doubtful: Steps that may have been made since the beginning although nobody was answered.
    """

    def __init__(self, identity: bytes) -> None:
        self.id = identity
        self.position = START
        self.doubtful = 0

    def took(self, position: int, moves: int) -> bool:
        """Return whether a reply may show this position after such a move, and record it."""
        unanswered = position - self.position - moves
        self.position = position
        self.doubtful -= unanswered
        return unanswered >= 0 and self.doubtful >= 0


class Campaign:
    """Trials against a service, by itself or through a proxy.

    Attributes:
        failures: What was wrong, in words; empty if nothing was.
        tried: How many trials of which kind have been made.
    """

    def __init__(self, address: Address, *, direct: bool, nginx: bool = False) -> None:
        self.failures: list[str] = []
        self.tried: Counter[str] = Counter()
        self._address = address
        self._direct = direct
        self._nginx = nginx
        self._passing: asyncio.Task[None] | None = None
        self._known: dict[str, bytes] = {}

    def run(self, trials: list[Trial], randomness: random.Random) -> None:
        """Run all trials, next to bystanders."""
        asyncio.run(self._run(trials, randomness))

    async def _run(self, trials: list[Trial], randomness: random.Random) -> None:
        todo = randomness.sample(trials, len(trials))
        self._ended = False
        bystanders = [asyncio.create_task(self._stand_by()) for _ in range(_BYSTANDERS)]
        workers = [
            asyncio.create_task(self._work(todo, random.Random(randomness.random())))
            for _ in range(CONCURRENT)
        ]
        try:
            await asyncio.gather(*workers)
        except (OSError, Gone, Broken, asyncio.TimeoutError) as error:
            self._fail("the service is gone, or answers no more", repr(error))
        finally:
            self._ended = True
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            ends = await asyncio.gather(*bystanders, return_exceptions=True)
        for end in ends:
            if end:
                self._fail("bystander", repr(end))

    async def _work(self, todo: list[Trial], randomness: random.Random) -> None:
        own = await self._create()
        while todo and len(self.failures) < 10:
            trial = todo.pop()
            try:
                if isinstance(trial, Split):
                    await self._split(trial, own, randomness)
                else:
                    await self._leave(trial, own, randomness)
            except (Gone, Broken, asyncio.TimeoutError) as error:
                # The position of the sequence is unknown from now on.
                self._fail(f"{trial!r:.400}", f"no reply: {error!r}")
                return
        # Steps without a reply must show now.
        async with self._client() as client:
            await client.send(_of(own, encoded(b"GET " + SEQUENCE)))
            self._took(own, await client.reply(), 0, "at the end")

    # --- What the trials have in common --------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _client(self, receive_buffer: int | None = None) -> AsyncIterator[Client]:
        client = Client(self._address, receive_buffer)
        try:
            await client.open()
            yield client
        finally:
            client.close()

    async def _create(self) -> Own:
        async with self._client() as client:
            await client.send(encoded(b"POST /api1/sequences"))
            reply = await client.reply()
            own = Own(_ids(reply)[0])
            document = b'{"position":"%d"}' % START
            await client.send(_of(own, encoded(b"PUT " + SEQUENCE, body=document)))
            self._took(own, await client.reply(), 0, "at the beginning")
        return own

    async def _bytes(self, sent: bytes, own: Own) -> bytes:
        if VICTIM in sent:
            victim = await self._create()
            sent = sent.replace(VICTIM, victim.id)
        return _of(own, sent)

    async def _read(self) -> None:
        """Return when the service has read all that was sent before this call.

        It reads connections in the order in which something came by them, and a new one last.
        """
        if self._passing is None or self._passing.done():
            self._passing = asyncio.create_task(self._pass())
            await asyncio.shield(self._passing)
            return
        # The byte may have been sent earlier.
        passing = self._passing
        await asyncio.shield(passing)
        await self._read()

    async def _pass(self) -> None:
        async with self._client() as client:
            await client.send(encoded(b"GET /livez"))
            await client.reply()

    def _fail(self, what: str, detail: object) -> None:
        self.failures.append(f"{what}: {detail}")

    def _took(self, own: Own, reply: Reply, moves: int, what: str) -> None:
        """Check that the reply shows our own sequence, moved this far."""
        found = re.match(
            rb'\{"id":"(\w+)","position":"(\d+)","digits":"\d+","value":"(\d+)"\}', reply.body
        )
        if reply.status != 200 or not found or found[1] != own.id:
            self._fail(what, f"{reply} in reply to a step of {own.id!r}")
            return
        position = int(found[2])
        if int(found[3]) != int(fmpz.fib_ui(fmpz(position))):
            self._fail(what, f"wrong digits: {reply}")
        before = own.position, own.doubtful
        if not own.took(position, moves):
            self._fail(what, f"at {position}, moved by {moves} from {before}: {reply}")

    # --- Requests in pieces ----------------------------------------------------------------------

    async def _split(self, trial: Split, own: Own, randomness: random.Random) -> None:
        if trial.request and trial.request.internal and self._nginx:
            return
        what = f"{trial.name!r} in two pieces at {trial.at} of {len(trial.sent)}"
        sent = await self._bytes(trial.sent, own)
        async with self._client() as client:
            # bjoern's parser may be new, or have parsed a request before.
            if randomness.random() < 0.5:
                await self._step(client, own, what)
            await client.send(sent[: trial.at])
            if sent[trial.at :]:
                await self._read()
                await client.send(sent[trial.at :])
            if trial.request is None:
                await self._survive(client, own, what)
            elif self._direct and (refusal := refused_in_pieces(sent, trial.at)):
                if (reply := await client.reply()).status != refusal:
                    self._fail(what, f"{reply} instead of {refusal}")
            elif (await self._check(trial.request, sent, client, own, what)).kept:
                await self._step(client, own, what)
        self.tried["campaign: requests whole and in pieces"] += 1

    async def _step(self, client: Client, own: Own, what: str) -> None:
        await client.send(_of(own, STEP.sent))
        self._took(own, await client.reply(), 1, f"step with {what}")

    async def _check(
        self, request: Request, sent: bytes, client: Client, own: Own, what: str
    ) -> Reply:
        """Return the reply to a valid request, after checking that it belongs to the request."""
        reply = await client.reply(sent[: sent.index(b" ")])
        if reply.status != request.status:
            self._fail(what, f"{reply} instead of {request.status}")
        elif request.moves:
            self._took(own, reply, request.moves, what)
        elif reply.status != 201:
            self._others(reply, sent, what)
        if _FIXED.match(sent) and self._known.setdefault(request.name, reply.body) != reply.body:
            self._fail(what, f"{reply} instead of {self._known[request.name]!r:.400}")
        return reply

    async def _survive(self, client: Client, own: Own, what: str) -> None:
        """Accept any reply to hostile bytes, except one that belongs to another client."""
        position = own.position
        with contextlib.suppress(Gone, Broken, asyncio.TimeoutError):
            self._others(await client.reply(timeout=_SILENCE), own.id, what)
        await client.send(_of(own, STEP.sent))
        if self._direct:
            await self._read()
        try:
            while own.position == position:
                reply = await client.reply(timeout=_SILENCE)
                if own.id in reply.body and reply.status == 200:
                    self._took(own, reply, 1, f"step after {what}")
                else:
                    self._others(reply, own.id, what)
        except (Gone, Broken):
            pass
        except asyncio.TimeoutError:
            # The service has read it, and not taken it for a request; a proxy may still hold it.
            own.doubtful += not self._direct

    def _others(self, reply: Reply, ours: bytes, what: str) -> None:
        """Check that the reply names no sequence except those in these bytes."""
        if others := [one for one in _ids(reply) if one not in ours]:
            self._fail(what, f"got the reply of {others}: {reply}")

    # --- Clients that go -------------------------------------------------------------------------

    async def _leave(self, trial: Leave, own: Own, randomness: random.Random) -> None:
        sent = await self._bytes(trial.request.sent, own)
        what = f"{trial.request.name!r}, gone {trial.when.value} by {trial.how.value}"
        async with self._client(receive_buffer=randomness.choice([None, 4096])) as client:
            if trial.how is How.UNREAD:
                await client.send(encoded(b"GET /api1/terms/7"))
                await client.arrival()
            elif randomness.random() < 0.5:
                await self._step(client, own, what)
            if trial.when is When.HALFWAY:
                await client.send(sent[: randomness.randrange(1, len(sent))])
            else:
                await client.send(sent)
            if trial.when is When.AFTER:
                await self._check(trial.request, sent, client, own, what)
            else:
                if trial.how is How.HALF:
                    client.shut()
                    if self._direct:
                        await self._check(trial.request, sent, client, own, what)
                        return
                own.doubtful += trial.request.moves * (trial.when is not When.HALFWAY)
                if trial.when is When.WITHIN:
                    await client.arrival()
                    if randomness.random() < 0.5:
                        await client.receive()
                elif randomness.random() < 0.5:
                    await self._read()
            client.close(reset=trial.how is How.RST)
        self.tried["campaign: clients gone"] += 1

    # --- Bystanders ------------------------------------------------------------------------------

    async def _stand_by(self) -> None:
        own = await self._create()
        fetched = [
            (b"/api1/terms/300000", 300_000),
            (b"/api1/terms/%d" % LARGE, LARGE),
            (b"/api1/terms/97", 97),
        ]
        digests = {n: _digest(n) for _, n in fetched}
        while not self._ended:
            async with self._client() as client:
                for _ in range(5):
                    await self._step(client, own, "bystander")
                for path, n in fetched:
                    await client.send(encoded(b"GET " + path, b"Accept: text/plain"))
                    reply = await client.reply()
                    if reply.status != 200 or sha256(reply.body).digest() != digests[n]:
                        self._fail(
                            "bystander",
                            f"wrong digits of F({n}): {reply.status} {reply.body[:200]!r}",
                        )
                        return
            self.tried["campaign: replies to bystanders"] += 8
            await asyncio.sleep(0.01)


@cache
def _digest(n: int) -> bytes:
    return sha256(str(fmpz.fib_ui(fmpz(n))).encode()).digest()


def _of(own: Own, sent: bytes) -> bytes:
    return sent.replace(OWN, own.id)


def _ids(reply: Reply) -> list[bytes]:
    place = reply.headers.get(b"location", b"")
    return [first or second for first, second in _ID.findall(place + reply.body[:4096])]
