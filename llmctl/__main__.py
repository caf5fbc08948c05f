"""`python -m llmctl`, which is also how torchrun starts it: `torchrun --nproc-per-node 8 -m llmctl pretrain ...`."""

from llmctl.cli.main import main

main()
