"""The verb ``serve``: answers requests with a bundle, over HTTP."""

from __future__ import annotations

from jdlopt.cli.show import DONE, console, print_json
from jdlopt.cli.verbs import ServeFlags


def serve(flags: ServeFlags) -> int:
    """Serves a bundle until it is stopped."""
    from jdlopt.export.listening import serve as run
    from jdlopt.export.manifest import opened
    from jdlopt.export.server import ServerOptions

    bundle = opened(flags.bundle)
    options = ServerOptions(flags.host, flags.port, flags.max_batch, flags.max_wait_ms)

    def say(url: str) -> None:
        if flags.json:
            print_json({"model": bundle.name, "url": url})
        else:
            infer = f"{url}/v2/models/{bundle.name}/infer"
            console().print(f"{bundle.name}: {infer} (Ctrl-C stops)", soft_wrap=True)

    run(bundle, options, say)
    return DONE
