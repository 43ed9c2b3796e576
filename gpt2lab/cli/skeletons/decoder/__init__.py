"""The paper example-decoder: its method is in `decoder.py`, its study in `study.py`."""
