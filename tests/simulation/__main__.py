"""Runs one seed again: python -m tests.simulation PROFILE SEED. Prints what broke, or the sums."""

from __future__ import annotations

import sys

from tests.simulation.schedule import PROFILES, Broken, run

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in PROFILES or not sys.argv[2].isdecimal():
        sys.exit(f"usage: python -m tests.simulation {{{'|'.join(PROFILES)}}} SEED")
    try:
        print(run(sys.argv[1], int(sys.argv[2])))
    except Broken as broken:
        sys.exit(str(broken))
