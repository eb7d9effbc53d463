"""What agents store as reports: whatever bytes they are, one of them never costs another, and nobody fails on them later."""

import json
from typing import Any

import msgspec
import pytest
from machine_story import START, A, B, Story, assigned, joined, submitted
from msgspec import Raw

from taskyard.contracts.agent_protocol import (
    MESSAGE_CHARACTERS_MAX,
    REPORT_BATCH_MAX,
    Failed,
    Planned,
    Progressed,
    Started,
    Succeeded,
)
from taskyard.contracts.events import AttemptFailed, AttemptSucceeded, Changes, TaskScheduled
from taskyard.contracts.lifecycle import Phase
from taskyard.dispatcher.machine import Dispatcher
from taskyard.dispatcher.reports import CODE_CHARACTERS_MAX, NUMBER_MAX, ReportsRead, read_reports

NULL = Raw(b"null")


def raw_report(kind: str, task: str = A, rest: bytes = b"", attempt: int = 1) -> bytes:
    return b'{"type":"%s","task":"%s","attempt":%d,"at":1%s}' % (kind.encode(), task.encode(), attempt, rest)


def read(*reports: bytes) -> ReportsRead:
    return read_reports("w1", b'{"incarnation":1,"number":1,"reports":[%s]}' % b",".join(reports))


def only(*reports: bytes) -> Any:
    batch = read(*reports).batch
    assert batch is not None
    (report,) = batch.reports
    return report


def with_attempts() -> Story:
    story = Story(Dispatcher()).given(joined())
    for slot, task in enumerate((A, B)):
        story.given(submitted(task, "plan"), TaskScheduled(task=task), assigned(task, slot=slot))
    return story


@pytest.mark.parametrize(
    "result",
    [
        b'"\xff\xfe"',
        b'{"\xff":1}',
        b"1e999",
        b"9" * 5_000,
        b"[" * 500 + b"]" * 500,
    ],
)
@pytest.mark.parametrize("kind", ["Succeeded", "Failed"])
def test_a_result_that_nobody_could_read_is_left_out_and_the_end_counts(result: bytes, kind: str) -> None:
    error = b',"error":{"code":"exit","message":"m"}' if kind == "Failed" else b""

    found = read(raw_report(kind, rest=error + b',"result":%s' % result))

    assert found.unreadable == 1
    story = with_attempts().when(found)
    (event,) = story.chosen
    assert isinstance(event, AttemptSucceeded | AttemptFailed)
    assert event.result == NULL
    assert A not in story.machine.state.tasks.live or kind == "Failed"


@pytest.mark.parametrize("result", [b'"\\ud800"', b'["\\udc00\\ud800",1]'])
def test_half_characters_in_a_result_are_replaced(result: bytes) -> None:
    assert "\ufffd".encode() in bytes(only(raw_report("Succeeded", rest=b',"result":%s' % result)).result)


@pytest.mark.parametrize(
    ("result", "stored"),
    [
        (b"1" * 4_200, b"null"),
        (b'{"n":-%s}' % (b"9" * 4_000), b'{"n":null}'),
        (b'{ "n" : [1%s, 7, true] }' % (b"0" * 30), b'{"n":[1e30,7,true]}'),
        (b'{"n":%d,"m":%d}' % ((1 << 63) - 1, -(1 << 63)), b'{"n":%d,"m":%d}' % ((1 << 63) - 1, -(1 << 63))),
        (b'{"b":1,"a":"\\u0041"}', b'{"b":1,"a":"A"}'),
    ],
    ids=["thousands of digits", "below", "more than 64 bits", "64 bits", "spelt otherwise"],
)
def test_a_result_is_stored_in_canonical_form_with_numbers_that_every_client_reads(
    result: bytes, stored: bytes
) -> None:
    report = only(raw_report("Succeeded", rest=b',"result":%s' % result))

    assert isinstance(report, Succeeded) and bytes(report.result) == stored
    json.loads(bytes(report.result))


def test_results_that_are_too_long_as_they_are_stored_are_left_out_and_the_ends_count() -> None:
    numbers = b"[" + b",".join([b"1e15"] * 10_000) + b"]"

    found = read(*(raw_report("Succeeded", task, rest=b',"result":%s' % numbers) for task in (A, B)))

    assert found.batch is not None and found.unreadable == 2
    assert all(isinstance(report, Succeeded) and report.result == NULL for report in found.batch.reports)


def test_one_report_that_cannot_be_read_loses_no_other_of_its_batch() -> None:
    bad = (
        b'{"type":"Grown","task":"%s"}' % A.encode(),
        b"[]",
        b"null",
        raw_report("Progressed", rest=b',"progress":700'),
    )

    found = read(raw_report("Started"), *bad, raw_report("Succeeded"), raw_report("Started", B))

    assert found.unreadable == len(bad)
    assert found.batch is not None
    assert [type(each) for each in found.batch.reports] == [Started, Succeeded, Started]
    story = with_attempts().when(found)
    assert A not in story.machine.state.tasks.live
    assert story.record(B).phase is Phase.RUNNING


def test_an_end_counts_whatever_bytes_stand_in_its_texts() -> None:
    bytes_of_no_text = raw_report("Failed", rest=b',"error":{"code":"exit","message":"no \xff\xfe luck"}')
    half_characters = raw_report(
        "Failed", rest=b',"error":{"code":"exit","message":"\\ud800 \\\\ud800 \\ud83d\\ude00"}'
    )

    assert only(bytes_of_no_text).error.message == "no \ufffd\ufffd luck"
    assert only(half_characters).error.message == "\ufffd \\ud800 \U0001f600"
    assert read(bytes_of_no_text, half_characters).unreadable == 0


def test_texts_of_reports_hold_no_nul_and_are_bounded() -> None:
    long = b"\\u0000" + b"x" * 10_000
    failed = only(raw_report("Failed", rest=b',"error":{"code":"%s","message":"%s"}' % (long, long)))
    lost = only(raw_report("Lost", rest=b',"message":"%s"' % long))

    assert (len(failed.error.code), len(failed.error.message)) == (CODE_CHARACTERS_MAX, MESSAGE_CHARACTERS_MAX)
    assert len(lost.message) == MESSAGE_CHARACTERS_MAX
    assert {failed.error.code[0], failed.error.message[0], lost.message[0]} == {"\ufffd"}
    assert only(raw_report("Progressed", rest=b',"progress":1,"message":"\\u0000"')).message == "\ufffd"


def test_numbers_of_reports_are_such_as_every_reader_knows() -> None:
    far = b"1" + b"0" * 40
    planned = only(raw_report("Planned", rest=b',"changes":{"add":%s,"change":-5,"destroy":2}' % far))

    assert planned.changes == Changes(add=NUMBER_MAX, change=0, destroy=2)
    assert only(raw_report("Started").replace(b'"at":1', b'"at":%s' % far)).at == NUMBER_MAX


def test_ends_of_attempts_that_never_were_are_not_told() -> None:
    ends = [raw_report("Succeeded", attempt=number) for number in (0, -1, -(10**30))]

    with_attempts().when(read(*ends)).then_nothing()


def test_what_is_no_batch_is_counted_and_passed_over() -> None:
    for data in (b"", b"{}", b"\xff\xfe", b"[" * 5_000, b'{"incarnation":1,"number":1,"reports":7}', b"x" * 10**6):
        found = read_reports("w1", data)
        assert (found.batch, found.unreadable) == (None, 1)


def test_of_a_batch_with_too_many_reports_the_first_ones_count() -> None:
    found = read(*[raw_report("Started")] * (REPORT_BATCH_MAX + 3))

    assert found.batch is not None
    assert (len(found.batch.reports), found.unreadable) == (REPORT_BATCH_MAX, 3)


def test_what_is_readable_is_left_as_it_is() -> None:
    result = Raw('{"a":[1,2.5,"\u00e9\U0001f600"],"b":null}'.encode())
    reports = (
        Started(task=A, attempt=1, at=START),
        Progressed(task=A, attempt=1, at=START, progress=7, message="é"),
        Planned(task=A, attempt=1, at=START, changes=Changes(add=1)),
        Succeeded(task=A, attempt=1, at=START, result=result),
    )

    found = read(*map(msgspec.json.encode, reports))

    assert found.unreadable == 0
    assert found.batch is not None
    assert found.batch.reports == reports


def test_an_unreadable_batch_of_failures_is_still_one_failure_each() -> None:
    reports = [raw_report("Failed", task, b',"error":{"code":"c","message":"\xff"}') for task in (A, B)]
    batch = read(*reports).batch

    assert batch is not None
    assert [type(each) for each in batch.reports] == [Failed, Failed]
