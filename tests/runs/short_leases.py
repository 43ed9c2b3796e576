"""Run by test_take_over.py in a process of its own: the command line with leases that run out within seconds."""

import sys

from gpt2lab.base import lease
from gpt2lab.cli import main

lease.TIMEOUT, lease.BEAT = 3.0, 0.5
sys.exit(main(sys.argv[1:]))
