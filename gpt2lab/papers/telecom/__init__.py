"""Understanding Telecom Language Through Large Language Models."""
