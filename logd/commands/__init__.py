"""One module per command of `logd`. A command reads its options, calls another package, prints.

Commands decide nothing themselves. `logd.cli` lists them.
"""
