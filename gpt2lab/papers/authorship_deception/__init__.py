"""Are You Robert or RoBERTa? Deceiving Online Authorship Attribution Models Using Neural Text Generators."""
