"""The fake program that answers over HTTP."""

from fake_program import main

if __name__ == "__main__":
    main(serves=True)
