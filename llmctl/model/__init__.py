"""What every stage means by a model: its shape, the transformer, the tokenizer and chat format, and its folder.

`config` has the shape and the dial, `families` what sets GPT-2, Llama, Qwen and nanochat apart, `transformer` the one
network for all; `folder` reads and writes, with `hf_config` and `names` for other people's words and `hub` and
`llama2c` for other places. `tokenizer`, `published` and `chat_format` turn text and conversations into ids.
"""
