"""What indeed can GPT models do in chemistry? A comprehensive benchmark on eight tasks."""
