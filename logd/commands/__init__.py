"""The commands of the command line, by what one does with them; `logd.cli` joins them to one.

A command reads its options, asks a module of the daemon's, and prints. Nothing is decided here.
"""
