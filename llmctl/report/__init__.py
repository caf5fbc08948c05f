"""Pages and plots: what a person opens to see how a run went. Plain data in, files out; no torch, no network."""
