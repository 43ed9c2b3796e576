"""Runs: their folders and records, the store, metrics, TensorBoard files."""
