"""A service that cannot start."""

import sys

if __name__ == "__main__":
    sys.exit("the fuse is blown")
