"""`python -m taskyard.chaos`."""

import sys

INTERRUPTED = 130
"""The exit status of a program that was ended by Ctrl-C."""

if __name__ == "__main__":
    try:
        from taskyard.chaos.app import main  # takes seconds on a busy machine, in which Ctrl-C may come too
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(main(sys.argv[1:]))
