"""Build the leaderboard over many records."""
