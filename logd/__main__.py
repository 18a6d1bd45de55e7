"""Makes `python -m logd` the same as `logd`."""

from logd.cli import main

main(prog_name="logd")
