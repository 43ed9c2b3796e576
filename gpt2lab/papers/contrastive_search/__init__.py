"""Contrastive Search Is What You Need For Neural Text Generation."""
