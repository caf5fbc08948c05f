"""What is worth its own machine code: kernels in C++ for CPUs with AMX, compiled on the machine that runs them.

PyTorch has a way for everything that stands here, and where there is no compiler or no AMX it is taken: the kernels are
faster, never needed. `build` makes them at first use and keeps them in the cache folder; the other modules call them.
"""
