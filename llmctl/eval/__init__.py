"""How good a model is, and how sure one can be: held-out items, intervals, paired comparisons, a page to read."""
