"""Explore, Establish, Exploit: Red Teaming Language Models from Scratch."""
