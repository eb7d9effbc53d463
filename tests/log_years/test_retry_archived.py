"""A retry reads the submission that it repeats, which may be in the archive alone."""

from pathlib import Path

import httpx
import pytest
from system import System
from test_data_folder import cli

TIMEOUT_SECONDS = 120


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_a_retry_of_what_is_only_in_an_archive_is_503_while_that_is_away_and_works_when_it_is_back(
    tmp_path: Path,
) -> None:
    system = System(tmp_path, arguments=())
    system.start()
    try:
        first = system.command("exit 3")
        system.wait(first, "failed")
    finally:
        assert system.stop() == 0
    cli("log", "new-generation", "--data", system.data)
    archive, away = system.data / "archive", system.data / "away"
    archive.rename(away)
    system.start()
    try:
        for _ in range(2):  # and nothing has come to a stop by that
            refused = system.act(first, "retry")
            assert refused.status_code == 503, refused.text
        assert system.wait(system.command("true"), "completed")
        away.rename(archive)
        answers: list[httpx.Response] = []

        def accepted() -> bool:
            answers.append(system.act(first, "retry"))
            return answers[-1].status_code == 202

        system.until(accepted, lambda: f"the retry is accepted: {answers[-1].text}")
        again = system.wait(answers[-1].json()["id"], "failed")
        assert (again["error"]["code"], again["attempt"]) == (system.task(first)["error"]["code"], 1)
    finally:
        assert system.stop() == 0
