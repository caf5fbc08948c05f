"""The synth stage: post-training data that nobody writes by hand."""
