"""Stock Gunicorn for hello.py and bare.py; the number of workers is WEB_CONCURRENCY."""

import os

wsgi_app = f"{os.environ['BENCHMARK']}:app"
bind = f"127.0.0.1:{os.environ['PORT']}"
worker_class = "gthread"
threads = 4
control_socket_disable = True  # one socket a user, and two servers run at once here
