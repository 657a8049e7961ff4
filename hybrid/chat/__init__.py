"""Text and tokens: the vocabulary, the prompt that goes in, and the events that come out."""
