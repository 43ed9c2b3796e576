"""`python -m gpt2lab` is the command line."""

import sys

from gpt2lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
