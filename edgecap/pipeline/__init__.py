"""Run the commands that need a model: profile, export, compress, doctor. Each step runs in a child."""
