"""The one way to run a task over shards: local processes or Ray, resumed by shard."""

from llmctl.parallel.guard import Crashed, Failed, Guard, TimedOut
from llmctl.parallel.run import cores, run_shards
from llmctl.parallel.ticks import tick
from llmctl.parallel.whole import whole_file, whole_folder

__all__ = ["Crashed", "Failed", "Guard", "TimedOut", "cores", "run_shards", "tick", "whole_file", "whole_folder"]
