"""SIM-CoT: Supervised Implicit Chain-of-Thought."""
