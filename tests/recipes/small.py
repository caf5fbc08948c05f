"""Every shipped recipe in a variant small enough for a test: the same steps, a few seconds each."""

from __future__ import annotations

QUICKSTART = [
    "crawl.max_pages=120",
    "tokenize.vocab_size=512",
    "pretrain.depth=1",
    "pretrain.context=128",
    "pretrain.train.steps=6",
    "lessons.mix={sums: 60, identity: 30, names: 40, lookup: 20, python: 20}",
    "lessons.heldout=6",
    "sft.train.steps=4",
    "sft.eval_items=6",
    "preferences.mix={preferences: 24}",
    "preferences.heldout=8",
    "rm.train.steps=3",
    "rl.train.steps=2",
    "rl.rollouts.prompts=4",
    "rl.rollouts.group=2",
    "rl.rollouts.max_new_tokens=12",
    "rl.eval_items=4",
    "eval.items=4",
    "eval.pairs=8",
    "eval.loss_tokens=2000",
    "eval.max_new_tokens=12",
    "answer.max_new_tokens=12",
]

YOUR_DATA = [
    "tokenize.vocab_size=512",
    "pretrain.depth=1",
    "pretrain.context=128",
    "pretrain.train.steps=4",
    "sft.train.steps=3",
    "sft.eval_items=4",
    "mine-answer.max_new_tokens=12",
]

FINEWEB = ["filter.workers=2"]

SITE = ["crawl.max_pages=60", "crawl.politeness.delay=0.0"]

_SMALL_CHAT = ["crawl.max_pages=40", "tokenize.vocab_size=512", "pretrain.depth=1", "pretrain.context=128",
               "pretrain.train.steps=4", "sft.train.steps=4", "sft.eval_items=4"]  # fmt: skip

R1_ZERO = [
    *_SMALL_CHAT,
    "seen.mix={sums: 60}",
    "seen.heldout=6",
    "rare.mix={sums: 60}",
    "rare.heldout=6",
    "zero.train.steps=2",
    "zero.rollouts={prompts: 4, group: 2, max_new_tokens: 12}",
    "zero.eval_items=4",
]

# Sums of one digit, which a model of this size learns by heart in a hundred updates: only what is right is handed on
# from one step to the next, so something has to be.
_ONE_DIGIT = ("cold", "reasoner", "reasoned", "wishes-sums", "taught", "small-rl")

R1 = [
    "crawl.max_pages=40",
    "tokenize.vocab_size=512",
    *(f"{name}.depth=1" for name in ("base", "small")),
    *(f"{name}.context=128" for name in ("base", "small")),
    *(f"{name}.train.steps=4" for name in ("base", "small")),
    *(f"{name}.sums.digits=[1, 1]" for name in _ONE_DIGIT),
    "cold.mix={sums: 300}",
    "cold.heldout=4",
    "general.mix={names: 20, identity: 20, lookup: 10}",
    "general.heldout=4",
    *(f"{name}.mix={{preferences: 12}}" for name in ("wishes", "wishes-sums")),
    *(f"{name}.heldout=8" for name in ("wishes", "wishes-sums")),
    "taught.mix={distill: 40}",
    "taught.heldout=4",
    *(f"{name}.{small}" for name in ("cold-start", "mixed") for small in ("train.steps=250", "batch_tokens=512")),
    *(f"{name}.train.steps=3" for name in ("distilled", "small-cold")),
    *(f"{name}.eval_items=4" for name in ("cold-start", "mixed", "distilled", "small-cold")),
    "wish-judge.train.steps=3",
    *(f"{name}.train.steps=2" for name in ("reasoner", "reasoned", "r1", "small-rl")),
    *(f"{name}.eval_items=4" for name in ("reasoner", "reasoned", "r1", "small-rl")),
    *(f"{name}.rollouts={{prompts: 16, group: 4, max_new_tokens: 48}}" for name in ("reasoner", "reasoned", "r1")),
    "small-rl.rollouts={prompts: 4, group: 2, max_new_tokens: 12}",
    "r1.guard={every: 2, items: 4}",
    "r1-eval.items=4",
    "r1-eval.max_new_tokens=12",
    "distillation.items=4",
    "distillation.max_new_tokens=12",
]

# With a folder for the published model, and files for the two parts of the set.
GSM8K = [
    "gsm8k-solver.train={steps: 2}",
    "gsm8k-solver.rollouts={template: 'Question: {question}\\nAnswer:', prompts: 4, group: 2, max_new_tokens: 12}",
    "gsm8k-solver.eval_items=4",
    "gsm8k-test.limit=4",
    "gsm8k-test.num_fewshot=1",
    "gsm8k-test.max_new_tokens=12",
]

RLHF = [
    *_SMALL_CHAT[:4],
    "lessons.mix={names: 200, identity: 40}",
    "lessons.heldout=8",
    "questions.mix={names: 40, identity: 20}",
    "questions.heldout=20",
    # Enough that some of its replies are right: of others there is no ranking.
    "chat.train.steps=120",
    "chat.batch_tokens=512",
    "chat.eval_items=4",
    "rankings.rollouts={prompts: 30, group: 4, max_new_tokens: 24}",
    "rankings.train.steps=2",
    "rankings.eval_items=40",
    "judge.train.steps=3",
    "judge.scale.samples=8",
    *(f"{name}.train.steps=3" for name in ("ppo", "grpo", "dpo")),
    *(f"{name}.eval_items=4" for name in ("ppo", "grpo", "dpo")),
    *(f"{name}.guard.items=16" for name in ("ppo", "grpo")),
    "ppo.rollouts={prompts: 6, group: 1, max_new_tokens: 12}",
    "grpo.rollouts={prompts: 3, group: 2, max_new_tokens: 12}",
    "dpo.rollouts.prompts=4",
    "eval.items=8",
]

CI = [
    "crawl.max_pages=40",
    "tokenize.vocab_size=512",
    "pretrain.depth=1",
    "pretrain.context=128",
    "pretrain.train.steps=4",
    "lessons.mix={identity: 20, names: 30, lookup: 20}",
    "lessons.heldout=6",
    "sft.train.steps=3",
    "sft.eval_items=4",
    "gate.items=4",
    "gate.loss_tokens=2000",
    "gate.max_new_tokens=12",
    "gate.python=false",
    "gate.fail_below=[identity=0]",
    "gate.fail_above=[base/bits_per_byte=20]",
    "answer.max_new_tokens=12",
]

ASSISTANT = [
    *_SMALL_CHAT,
    "course-1.mix={sums: 10, identity: 20, names: 30, lookup: 20, python: 20}",
    "course-2.mix={sums: 10, identity: 20, names: 30, lookup: 20, python: 20}",
    *(f"course-{n}.heldout=4" for n in (1, 2)),
    "exam.heldout=6",
    "exam.lookup.distractors=4",
    "eval.items=4",
    "eval.max_new_tokens=12",
    "eval.fail_below=[]",
    "eval.fail_above=[]",
    "answers.max_new_tokens=12",
]

# Sizes by width and not by depth: sixteen runs in as many seconds.
SWEEP = [
    "crawl.max_pages=40",
    "tokenize.vocab_size=512",
    "pretrain.depth=1",
    "pretrain.context=64",
    "pretrain.batch_tokens=256",
    "pretrain.eval_tokens=1000",
    *(f"d{d}-s{s}.model={{width: {32 * d}, head_dim: 32}}" for d in (1, 2, 3, 4) for s in (104, 208, 416, 832)),
    *(f"d{d}-s{s}.train.steps={s // 52}" for d in (1, 2, 3, 4) for s in (104, 208, 416, 832)),
    "scaling.scaling={hold_back: largest, bootstrap: 20}",
    "scaling.fail_above=[]",
]


def flags(sets: list[str]) -> list[str]:
    """The overrides as command-line words."""
    return [word for s in sets for word in ("-s", s)]
