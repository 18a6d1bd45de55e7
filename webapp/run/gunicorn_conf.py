"""gunicorn's settings for `make run`: a site on loopback, quiet, and with no log of requests."""

# Loaded once, before the workers are forked: a bad key is said in one sentence, by one process.
preload_app = True
workers = 2
# Browsers hold idle connections open; a worker of one thread would be held by the first of them.
worker_class = "gthread"
threads = 4

# An access log would put into plain text what logd keeps encrypted.
accesslog = None
loglevel = "warning"

timeout = 60
graceful_timeout = 5
# Nobody steers this instance but the supervisor, by signals.
control_socket_disable = True
