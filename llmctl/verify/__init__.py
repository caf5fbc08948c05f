"""Problems with known answers, made by code, and the checks that judge a reply. Used by synth, sft, rl and eval."""

from llmctl.verify.checks import CHECKS, check
from llmctl.verify.item import Item, Verdict, held_out
from llmctl.verify.problems import KINDS, problems

__all__ = ["CHECKS", "KINDS", "Item", "Verdict", "check", "held_out", "problems"]
