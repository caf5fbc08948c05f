"""The tools that a model may call: search and Python. The same code in chat, in roll-outs and in evaluation."""
