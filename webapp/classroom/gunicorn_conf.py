"""gunicorn's settings for the site, in `make run` and as a service, without an access log."""

import os

# The app is loaded once, before the workers are forked, so that a wrong key is reported once.
preload_app = True
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
# Browsers keep idle connections open, and such a connection would occupy a worker's only thread.
worker_class = "gthread"
threads = 4

# An access log would store in plain text what logd stores encrypted.
accesslog = None
loglevel = "warning"

timeout = 60
graceful_timeout = 5
# The directory of the workers' heartbeat files, in memory since a disk may be slow.
worker_tmp_dir = "/dev/shm"  # noqa: S108 - made without a name
# No control socket: gunicorn is controlled by signals only.
control_socket_disable = True
