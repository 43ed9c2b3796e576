"""The paper example-architecture: its method is in `architecture.py`, its study in `study.py`."""
