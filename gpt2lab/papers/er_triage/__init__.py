"""Pre-training A Neural Language Model Improves The Sample Efficiency of an Emergency Room Classification
Model.
"""
