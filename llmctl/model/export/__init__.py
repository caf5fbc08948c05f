"""A model as files for other programs: GGUF for llama.cpp, or one file of weights and a C program."""
