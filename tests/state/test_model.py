"""The log, compared with a dictionary, in steps, crashes and reopenings that Hypothesis chooses."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from bigfib.state import reader
from bigfib.state.log import Log

ids = st.sampled_from([b"shared", b"a", b"b", b"", bytes(300)])
positions = st.one_of(st.integers(0, 300), st.integers(0, 2**2000))


class LogMachine(RuleBasedStateMachine):
    """A log, and the changes made to it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.path = self.directory / "state.log"
        self.log: Log | None = None
        self.model: dict[bytes, int] = {}
        # The possible states of each sequence since the last commit.
        self.since: dict[bytes, set[int | None]] = {}
        self.open()

    def open(self) -> None:
        self.log = Log(self.path, rewrite_bytes=200)

    @property
    def opened(self) -> Log:
        assert self.log
        return self.log

    @rule(sequence_id=ids, position=positions)
    def seek(self, sequence_id: bytes, position: int) -> None:
        self.changes(sequence_id, position)
        self.opened.note(sequence_id, position)
        self.model[sequence_id] = position

    @rule(sequence_id=ids)
    def step(self, sequence_id: bytes) -> None:
        self.seek(sequence_id, self.model.get(sequence_id, 0) + 1)

    @rule(sequence_id=ids)
    def delete(self, sequence_id: bytes) -> None:
        self.changes(sequence_id, None)
        self.opened.note(sequence_id, None)
        self.model.pop(sequence_id, None)

    def changes(self, sequence_id: bytes, position: int | None) -> None:
        so_far = self.since.setdefault(sequence_id, {self.model.get(sequence_id)})
        so_far.add(position)

    @rule()
    def commit(self) -> None:
        self.opened.commit()

    @rule()
    def rewrite(self) -> None:
        self.opened.compact()

    @rule()
    def reopen(self) -> None:
        self.opened.close()
        self.open()

    @rule(tail=st.binary(min_size=1, max_size=100))
    def crash_with_a_torn_tail(self, tail: bytes) -> None:
        """Close, and tear a write that was never acknowledged."""
        self.opened.close()
        with self.path.open("ab") as file:
            file.write(tail)
        self.open()

    @invariant()
    def the_log_is_the_model(self) -> None:
        log = self.opened
        assert {name: log.position(name) for name in log.latest} == self.model
        contents = reader.read(self.path)
        assert contents.fault is None
        found = {name: contents.position(name) for name in contents.latest}
        if log.committed == log.changes:
            self.since = {}
        for name in found.keys() | self.model.keys():
            assert found.get(name) in self.since.get(name, {self.model.get(name)})

    def teardown(self) -> None:
        self.opened.close()
        shutil.rmtree(self.directory)


def test_log_after_any_steps_crashes_and_reopenings_agrees_with_a_dictionary(times: int) -> None:
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=60 * times,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
