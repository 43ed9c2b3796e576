"""Language Modeling with Learned Meta-Tokens."""
