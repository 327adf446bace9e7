"""Read a corpus, tokenize it, and compress it."""
