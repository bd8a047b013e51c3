"""What a worker process of the tests answers with: a run's record, a failure, or noise."""

import os
import signal
import time
from pathlib import Path

from jdlopt.errors import DataError
from jdlopt.executor.messages import Progress, RunTrained


def start(link):
    def handle(request):
        how = request.config["how"]
        if how == "noise":
            link._out.write("no message\n")
        if how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "file":
            try:
                Path("/nowhere/x").read_bytes()
            except OSError as error:
                raise DataError("/nowhere/x: can't be read") from error
        while how == "wait" and not link.stopped(request.task):
            link.send(Progress(request.task, 1, 2, 1))
            time.sleep(0.01)
        print("what libraries print is no message")
        return RunTrained(request.task, {"status": "done"})

    return handle
