"""`python -m gpt2lab` is the command line."""

from gpt2lab.cli import script

if __name__ == "__main__":
    script()
