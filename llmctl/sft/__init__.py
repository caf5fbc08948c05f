"""From a base model to an assistant."""
