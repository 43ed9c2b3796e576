"""The paper example-measure: its method is in `measure.py`, its study in `study.py`."""
