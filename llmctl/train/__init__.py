"""The one training loop and what it is made of; pretrain, sft, rm and rl are four sources and losses for it."""
