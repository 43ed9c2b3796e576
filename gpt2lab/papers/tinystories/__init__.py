"""TinyStories: how small can language models be and still speak coherent English? (Eldan and Li 2023)."""
