"""What is worth its own machine code: kernels in C++, most of them for CPUs with AMX, compiled where they run.

PyTorch, or for `bpe` numpy, has a way for everything that stands here, and where there is no compiler or no AMX it is
taken: the kernels are faster, never needed. `build` makes them at first use and keeps them in the cache folder; the
other modules call them.
"""
