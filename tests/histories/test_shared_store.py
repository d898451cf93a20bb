"""Histories over all that happens to a database with a synchronous standby, and to its servers."""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import cycle

from tests.histories.load import working
from tests.histories.test_services import History
from tests.postgres import Cluster, free_port, pgbouncer, synchronous_standby
from tests.service import Serve, until
from tests.shared_store.test_workers import children


class Pair:
    """A primary with a synchronous standby, two servers, and what their clients are answered.

    The clock of one server is 91 days ahead, that of the other 91 days behind, and so are those of
    standbys. Each method is something that happens; after it there is a primary with a standby
    again.
    """

    def __init__(
        self,
        cluster: Cluster,
        serve: Serve,
        history: History,
        wrong_clock: Callable[[int], list[str]],
    ) -> None:
        self._opened = ExitStack()
        ahead, behind = (wrong_clock(days) for days in (91, -91))
        self._clocks = cycle([ahead, behind, []])
        self._ports = [cluster.port, free_port()]
        self._history = history
        self._primary = cluster
        self._renew_standby()
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        url = f"postgresql://postgres@{hosts}/postgres"
        self.services = [
            serve("--store", url, before=ahead),
            serve("--store", url, "--workers", "2", before=behind),
        ]

    def close(self) -> None:
        self._opened.close()

    def kill_primary(self) -> None:
        self._primary.kill()
        self._fail_over()

    def switch_over(self) -> None:
        self._primary.stop()
        self._fail_over()

    def wake_old_primary(self) -> None:
        self._primary.pause()
        self._history.failures(3)
        self._standby.promote()
        self._primary.resume()
        self._history.more(100)
        self._fail_over(promote=False)

    def pause_primary(self) -> None:
        self._primary.pause()
        self._history.failures(3)
        self._primary.resume()

    def kill_standby(self) -> None:
        self._standby.kill()
        self._history.failures(3)
        self._standby.start()

    def pause_standby(self) -> None:
        self._standby.pause()
        self._history.failures(3)
        self._standby.resume()

    def cut_network(self) -> None:
        self._cut()
        self._mend()

    def cut_network_and_fail_over(self) -> None:
        self._cut()
        self._replace_running_primary()

    def cancel_commits(self) -> None:
        self._cut()
        self._cancel()
        self._mend()

    def cancel_commits_and_fail_over(self) -> None:
        self._cut()
        self._cancel()
        self._replace_running_primary()

    def kill_worker(self) -> None:
        parent = self.services[1].process.pid
        until(lambda: len(children(parent)) == 2)
        worker = min(children(parent))
        os.kill(worker, signal.SIGKILL)
        until(lambda: len(children(parent) - {worker}) == 2)

    def go_on(self) -> None:
        """Return when much is answered, and all that was under way before has ended."""
        now = self._primary.sql("SELECT clock_timestamp()::text")[0][0]
        self._history.more(150)
        until(
            lambda: (
                not self._primary.sql(
                    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
                    f"AND state <> 'idle' AND query_start < '{now}'"
                )
            )
        )
        self._history.recorder.settle()

    def _cut(self) -> None:
        self._standby.sql("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        self._history.failures(3)

    def _cancel(self) -> None:
        """Make changes visible that no standby has, and let clients look for them."""
        for _ in range(3):
            until(self._primary.cancel_waits)
            self._history.failures(3)

    def _mend(self) -> None:
        primary = f"host=127.0.0.1 port={self._primary.port} user=postgres"
        setting = f"ALTER SYSTEM SET primary_conninfo = '{primary}'"
        self._standby.sql(setting, "SELECT pg_reload_conf()")

    def _replace_running_primary(self) -> None:
        self._standby.promote()
        # The old primary goes on, and takes connections.
        self._history.more(100)
        self._fail_over(promote=False)

    def _fail_over(self, *, promote: bool = True) -> None:
        if promote:
            self._standby.promote()
        # What the old primary has not replicated by now never counts.
        self._history.recorder.settle()
        self._history.more(100)
        self._primary.remove()
        self._primary = self._standby
        self._renew_standby()

    def _renew_standby(self) -> None:
        (port,) = {*self._ports} - {self._primary.port}
        self._standby = synchronous_standby(self._primary, port, next(self._clocks))
        self._opened.callback(self._standby.remove)


EVENTS: list[Callable[[Pair], None]] = [
    *(Pair.kill_primary, Pair.switch_over, Pair.wake_old_primary, Pair.pause_primary),
    *(Pair.kill_standby, Pair.pause_standby, Pair.cut_network, Pair.cut_network_and_fail_over),
    *(Pair.cancel_commits, Pair.cancel_commits_and_fail_over, Pair.kill_worker),
]


def test_history_over_troubles_of_primary_and_standby_is_linearizable(
    serve: Serve,
    cluster: Cluster,
    wrong_clock: Callable[[int], list[str]],
    tried: Counter[str],
    times: int,
) -> None:
    chance = random.Random(3)
    events: list[Callable[[Pair], None]] = [Pair.kill_primary, Pair.cancel_commits_and_fail_over]
    if times > 1:
        events = [event for _ in range(times // 2) for event in chance.sample(EVENTS, len(EVENTS))]
    history = History(3)
    pair = Pair(cluster, serve, history, wrong_clock)
    try:
        with working(history.clients(pair.services)):
            pair.go_on()
            for event in events:
                event(pair)
                pair.go_on()
                tried[f"events with a history: {event.__name__}"] += 1
        history.check(pair.services[0], tried, "primary and standby")
    finally:
        pair.close()


def test_history_over_restarts_of_a_pooler_is_linearizable(
    serve: Serve, shared_cluster: Cluster, database: str, tried: Counter[str], times: int
) -> None:
    history, port = History(4), free_port()
    with ExitStack() as opened:
        pooler = opened.enter_context(ExitStack())
        start = partial(pgbouncer, shared_cluster, database, "transaction", 4, port)
        url = pooler.enter_context(start())
        services = [serve("--store", url) for _ in range(2)]
        with working(history.clients(services)):
            for _ in range(2 * times):
                history.more(150)
                pooler.close()
                history.failures(3)
                pooler.enter_context(start())
            history.more(150)
        history.check(services[0], tried, "pooler")
