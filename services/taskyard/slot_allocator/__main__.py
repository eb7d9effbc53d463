"""`python -m taskyard.slot_allocator --config FILE`."""

from taskyard.service import main
from taskyard.slot_allocator.app import run

if __name__ == "__main__":
    main(run)
