"""Writes `deploy/nats-accounts.conf` from the one table of users: `python -m taskyard.embedded.deployment [--check]`.

A password is a variable of nats-server's configuration, which `deploy/make-secrets` sets in a file of its own.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from taskyard.embedded.nats_users import agent_user, client_user, fixed_users, make_accounts

FILE = Path(__file__).parents[3] / "deploy" / "nats-accounts.conf"
AGENTS = ("agent-1",)
PRINCIPALS = ("admin",)
_HEAD = """\
# Generated from libs/taskyard/embedded/nats_users.py by `./dev generate`. Do not edit.
#
# Another agent or principal: copy this file and the block of `agent-1` or `admin` in it, with the name replaced everywhere.

include ./nats-passwords.conf

"""


def password_variable(user: str) -> str:
    """The variable that holds the password of a user."""
    return f"NATS_{re.sub(r'[^A-Z0-9]', '_', user.upper())}_PASSWORD"


def render() -> str:
    """The accounts of a deployment with one agent and one principal, in nats-server's own notation, of which JSON is a part."""
    users = [*fixed_users(), *map(agent_user, AGENTS), *map(client_user, PRINCIPALS)]
    accounts = make_accounts(users, lambda user: f"${password_variable(user)}")
    text = msgspec.json.format(msgspec.json.encode(accounts)).decode()
    bare = re.sub(r'"(\$NATS_[A-Z0-9_]+)"', r"\1", text)  # within quotes it would be text
    return f"{_HEAD}accounts {bare}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or with `--check` compare it; the exit status."""
    parser = argparse.ArgumentParser(prog="taskyard.embedded.deployment", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where it differs")
    wanted = render()
    if not parser.parse_args(arguments).check:
        FILE.write_text(wanted, encoding="utf-8")
        return 0
    if FILE.exists() and FILE.read_text(encoding="utf-8") == wanted:
        return 0
    sys.stdout.write(f"{FILE} is not what the table of users gives: run ./dev generate\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
