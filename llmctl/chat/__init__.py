"""Talking to a model: in the terminal, once from the shell, or as a recorded step of a recipe."""
