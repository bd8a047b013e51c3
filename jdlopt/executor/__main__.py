"""A worker process: ``python -m jdlopt.executor MODULE``."""

import sys

from jdlopt.executor.worker import serve

if __name__ == "__main__":
    serve(sys.argv[1])
