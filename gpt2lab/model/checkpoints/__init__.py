"""Checkpoint files: Hugging Face folders, the lab's own layout, one file for each family."""
