"""`python -m logd` is `logd`."""

from logd.cli import main

main(prog_name="logd")
