"""Bodies of which nothing can be accepted, as large as a door takes: they cost nobody else."""

from concurrent.futures import ThreadPoolExecutor

from system import System

FAULTS = b'{"tasks":[' + b",".join([b"0"] * ((1 << 20) // 2 - 16)) + b"]}"
AT_ONCE = 4
LEADS = '"message":"leads"'
SHARE_IN_BODIES = 40
ANSWER_SECONDS_MAX = 3.0
"""Reading all of one such body took twice as long."""


def _takeovers(yard: System) -> int:
    return sum(log.read_text().count(LEADS) for log in (yard.data / "logs").glob("*.log"))


def test_four_bodies_of_tasks_that_are_none_at_once_depose_no_leader_and_are_answered_shortly(yard: System) -> None:
    led = _takeovers(yard)
    assert led >= 3
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: yard.http.post("/tasks", content=FAULTS), range(AT_ONCE)))

    for answer in answers:
        assert answer.status_code == 422 and len(answer.content) < 8_192
        assert answer.elapsed.total_seconds() < ANSWER_SECONDS_MAX
    yard.wait(yard.submit("noop", input={}), "completed")
    assert _takeovers(yard) == led


def test_who_sends_nothing_but_faults_is_read_no_further_and_told_which_limit_it_meets(yard: System) -> None:
    with yard.as_operator() as operator, ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: operator.post("/tasks", content=FAULTS), range(SHARE_IN_BODIES)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused and {answer.status_code for answer in answers} == {422, 429}
        assert refused[0].json()["error"] == "too_much_refused" and "2 MiB a second" in refused[0].json()["detail"]
        assert 1 <= int(refused[0].headers["Retry-After"]) <= 20
        assert operator.get("/tasks").status_code == 200
    yard.wait(yard.submit("noop", input={}), "completed")
