"""The paper example-optimizer: its method is in `optimizer.py`, its study in `study.py`."""
