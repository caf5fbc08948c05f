"""Reward models: a number for how good a reply is, learned from which of several replies people preferred."""
