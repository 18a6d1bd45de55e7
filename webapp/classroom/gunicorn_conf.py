"""gunicorn's settings for the site, in `make run` and as a service: quiet, no log of requests."""

import os

# Loaded once, before the workers are forked: a bad key is said in one sentence, by one process.
preload_app = True
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
# Browsers hold idle connections open; a worker of one thread would be held by the first of them.
worker_class = "gthread"
threads = 4

# An access log would put into plain text what logd keeps encrypted.
accesslog = None
loglevel = "warning"

timeout = 60
graceful_timeout = 5
# Workers show here that they live: in memory, for a disk may be slow.
worker_tmp_dir = "/dev/shm"  # noqa: S108 - made without a name
# Nobody steers it but who started it, by signals.
control_socket_disable = True
