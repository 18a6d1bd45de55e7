"""`python -m webapp.run`, which is `make run`: brings logd and the site up, and down in order.

`plan` says what is going to be executed, `process` is a child process, `supervisor` is one run.
"""
