"""What the model sees: sources, features, the question, and the contracts of raw tables."""
