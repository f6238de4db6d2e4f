"""Loaded first by the server that children are forked from: Ctrl-C is their parent's to handle, at every moment.

A child that ignored it only once its work began would, in the moments before, answer Ctrl-C with a traceback.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
