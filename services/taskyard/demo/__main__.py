"""`python -m taskyard.demo`."""

import asyncio
import sys

INTERRUPTED = 130
"""The exit status of a program that was ended by Ctrl-C."""

if __name__ == "__main__":
    try:
        # Takes a second, in which Ctrl-C may come too.
        from taskyard.bench.command_line import ended_in_order
        from taskyard.demo.app import main, parse

        parse(sys.argv[1:])
        with ended_in_order():
            sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
