"""Learn a label of one's own from an embedding, and publish what is predicted: probabilities, sets and intervals."""
