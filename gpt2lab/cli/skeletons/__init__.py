"""What `gpt2lab papers new` begins with: one small working paper for each kind of part.

They are ordinary packages, so that they are checked, typed and run like all other code; see `gpt2lab.cli.skeleton`.
"""
