"""The one place that knows all the stages: checks a whole recipe, plans it, runs it, skips what is done."""
