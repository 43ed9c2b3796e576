"""The papers: one folder each, with the parts it adds to the lab and its own study."""
