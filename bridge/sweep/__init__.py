"""Many distillations over a grid of options: resumable, into one table and one picture.

Nothing here knows a framework: every run is the ordinary `distill` command of a program, in a process of its own.
"""

from bridge.sweep.command import sweep
from bridge.sweep.grid import Axis, Run
from bridge.sweep.results import Outcome

__all__ = ["Axis", "Outcome", "Run", "sweep"]
