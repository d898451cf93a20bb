"""Every sync is needed: without it, or late, clients see that something is lost.

The service is not changed. The disk leaves out a sync, or makes it when forty more calls have been
made, so that what follows it comes first: the order is another.
"""

import random
from collections import Counter

import pytest

from tests.histories.checker import NotLinearizable
from tests.histories.load import NotOnce
from tests.power.episode import End, Episode, Refused
from tests.power.machine import Machine
from tests.power.syncs import LATE, SYNCS, Sync

_EPISODES = 50


def lives_until_found(machine: Machine, sync: Sync, late_by: int) -> int | None:
    """Return after how many lives the missing sync shows; None if it does not."""
    lives = 0
    for seed in range(_EPISODES):
        machine.mutate("")
        chance = random.Random(seed)
        episode = Episode(machine, seed, rewrites=sync.rewrites)
        if sync.warm:
            episode.live(End(40))
        machine.mutate(sync.what, number=sync.number, late_by=late_by)
        try:
            for end in sync.ends(chance):
                lives += 1
                episode.live(end)
                episode.check()
        except (NotLinearizable, NotOnce, Refused):
            return lives
    return None


def test_commit_whose_sync_is_left_out_is_missed(machine: Machine) -> None:
    assert lives_until_found(machine, SYNCS["of a commit"], 0)


@pytest.mark.campaign
@pytest.mark.parametrize("late_by", [0, LATE], ids=["left out", "late"])
@pytest.mark.parametrize("name", SYNCS)
def test_sync_is_missed(
    machine: Machine, name: str, late_by: int, times: int, tried: Counter[str]
) -> None:
    if late_by and times == 1:
        pytest.skip("takes long; run with --torture")
    lives = lives_until_found(machine, SYNCS[name], late_by)
    assert lives
    how = "late" if late_by else "left out"
    tried[f"lives until it showed that the sync {name} was {how}"] += lives
