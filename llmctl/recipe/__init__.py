"""Settings with a schema, YAML with line numbers, and every mistake of a recipe reported at once."""

from llmctl.recipe.settings import InputOf, NoResult, Settings, StageSettings

__all__ = ["InputOf", "NoResult", "Settings", "StageSettings"]
