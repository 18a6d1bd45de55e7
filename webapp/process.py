"""`webapp.run.process` under its former name, which `benchmarks/processes.py` still imports."""

from webapp.run.process import Child, Events, Exited, Line, describe_exit

__all__ = ["Child", "Events", "Exited", "Line", "describe_exit"]
