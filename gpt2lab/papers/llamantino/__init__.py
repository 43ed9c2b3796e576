"""LLaMAntino: LLaMA 2 Models for Effective Text Generation in Italian Language."""
