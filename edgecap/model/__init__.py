"""Find a model, read its config, and count its FLOPs, parameters and bytes."""
