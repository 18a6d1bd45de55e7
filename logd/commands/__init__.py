"""One module per command of `logd`. A command reads its options, calls a room, and prints.

Commands decide nothing themselves. `logd.cli` lists them.
"""
