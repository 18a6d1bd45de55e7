"""`make run`, or `python -m webapp.run`: starts logd and the site, and stops them in order.

`plan` holds paths and commands, `preparation` checks directory and port, `process` is one child
process, `supervisor` one run, `messages` what it prints.
"""
