"""What a program said last, as a person is told it."""

from pathlib import Path

import pytest

from taskyard.dev.last_words import CHARACTERS_MAX, last_words


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("the fuse is blown\n", "the fuse is blown"),
        ("[123] 2026/11/21 17:48:32.928 [FTL] Can't start JetStream\n", "[FTL] Can't start JetStream"),
        ('{"message": "stopped", "reason": "too old"}\n', "stopped: too old"),
        ('{"message": "failed", "exception": "Traceback\\n  | ValueError: no"}\n', "failed: ValueError: no"),
        (
            (
                '2026-11-21 17:48:32.920 UTC [7] FATAL:  lock file "postmaster.pid" already exists\n'
                "2026-11-21 17:48:32.921 UTC [7] HINT:  Is another postmaster running?\n"
                "2026-11-21 17:48:32.928 UTC [7] LOG:  database system is shut down\n"
            ),
            'FATAL:  lock file "postmaster.pid" already exists',
        ),
        ("FATAL: long ago\n" + "and on it went\n" * 20, "and on it went"),
        ("x" * 5000, "x" * CHARACTERS_MAX),
    ],
)
def test_the_reason_is_found_and_stripped_of_what_is_no_word(tmp_path: Path, log: str, words: str) -> None:
    (tmp_path / "one.log").write_text(log)
    assert last_words(tmp_path / "one.log") == words


def test_a_program_without_a_log_said_nothing(tmp_path: Path) -> None:
    assert last_words(tmp_path / "none.log") == ""
