"""A planning process: ``python -m jdlopt.plan``."""

from jdlopt.plan.worker import serve

if __name__ == "__main__":
    serve()
