"""Find Central Dogma Again: Leveraging Multilingual Transfer in Large Language Models."""
