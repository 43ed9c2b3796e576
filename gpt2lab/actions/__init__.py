"""What a person does with a model: load, train, apply, measure, generate, each recorded as a run."""
