"""Import this first in a process of rooms: it must outlive the signal that ends the worker.

systemd and terminals signal every process of a service at once. Only the worker's main process
may act on it; it ends the rooms in order, and rooms whose main process dies end by themselves.
"""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
