"""Format results as text for a terminal."""
