"""Signals that were ignored when pytest began, by `nohup` or by a shell's `&`, are not ignored by what tests start.

Programs respect what they inherit: `taskyard dev` goes on when its terminal is closed if it was started by `nohup`.
"""

import signal


def pass_on_no_ignored_signals() -> None:
    """Handle them by doing nothing instead: a handler is not inherited by a program, and being ignored is."""
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def _do_nothing(*_: object) -> None: ...
