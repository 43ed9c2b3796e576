"""The paper example-transform: its method is in `transform.py`, its study in `study.py`."""
