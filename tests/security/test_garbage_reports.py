"""One agent that stores garbage keeps the others waiting no longer than it takes to read past it."""

import os
import time

from taskyard.contracts.agent_protocol import REPORT_BYTES_MAX
from taskyard.dispatcher.mending import READ_WITH_CARE
from taskyard.dispatcher.reports import read_reports
from taskyard.quotas import NAMES_MAX, Shares

BATCHES = 2_000


def test_garbage_beyond_an_agents_share_is_set_aside_before_it_costs() -> None:
    mending, data = Shares(READ_WITH_CARE), os.urandom(REPORT_BYTES_MAX)
    begun = time.process_time()
    for number in range(BATCHES):
        found = read_reports("a", data, lambda now=number / 1_000: mending.take("a", len(data), now))
        assert (found.batch, found.unreadable) == (None, 1)
    assert time.process_time() - begun < 2.0  # more than 6 s where each is read with care


def test_within_its_share_what_an_agent_stored_is_read_with_care() -> None:
    data = b'{"incarnation":1,"number":1,"reports":[{"type":"Nope"}]}'
    read = read_reports("a", data, lambda: True)
    assert read.batch is not None and (len(read.batch.reports), read.unreadable) == (0, 1)
    aside = read_reports("a", data, lambda: False)
    assert (aside.batch, aside.unreadable) == (None, 1)


def test_the_share_of_one_agent_is_none_of_another_and_comes_back() -> None:
    mending = Shares(READ_WITH_CARE)
    assert mending.take("a", READ_WITH_CARE.at_once, 0.0)
    assert not mending.take("a", 1_000, 0.0)
    assert mending.take("b", READ_WITH_CARE.at_once, 0.0)
    assert mending.take("a", READ_WITH_CARE.per_second, 1.0)
    assert not mending.take("a", 1_000, 1.0)


def test_no_number_of_names_fills_the_memory() -> None:
    mending = Shares(READ_WITH_CARE)
    assert all(mending.take(f"a{number}", 1, 0.0) for number in range(NAMES_MAX))
    assert not mending.take("one more", 1, 0.0)
