"""The paper example-objective: its method is in `objective.py`, its study in `study.py`."""
