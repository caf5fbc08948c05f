"""The one inference engine: KV cache, batched sampling, forced tool output. Used by chat, rl and eval alike."""
