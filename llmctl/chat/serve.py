"""`llmctl chat MODEL --serve`: a server that speaks OpenAI's protocol, and a page to talk, compare and correct."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from llmctl.chat.api import LOCAL, Api
from llmctl.chat.config import ChatConfig
from llmctl.chat.http import Limits, serve
from llmctl.chat.log import Log
from llmctl.chat.speaker import load_speaker
from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.generate.scheduler import Scheduler
from llmctl.workspace import Workspace

KEY = "LLMCTL_API_KEY"
_GRACE = 8.0  # seconds for answers under way: Docker kills after ten


def serve_model(
    workspace: Workspace,
    config: ChatConfig,
    console: Console,
    limits: Limits | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM, then finish what is being answered; the second one cuts it off.

    `ready` is told the address. UserError where it may not or cannot listen.
    """
    key = os.environ.get(KEY, "")
    if config.host not in LOCAL and not key:
        raise UserError(
            f"{config.host} can be reached from outside, and anyone there could use the model",
            "--host",
            f"set a key: {KEY}=... llmctl chat {config.model} --serve --host {config.host}",
        )
    speaker = load_speaker(workspace, config)
    log = Log(workspace) if config.log else None
    scheduler = Scheduler(speaker.engine, speaker.tools, config.batch_size)
    api = Api(workspace, config, speaker, scheduler, log, key)
    try:
        asyncio.run(_run(api, config, console, limits, ready))
    except KeyboardInterrupt:
        pass
    finally:
        scheduler.close()
        if log is not None:
            log.close()


async def _run(
    api: Api, config: ChatConfig, console: Console, limits: Limits | None, ready: Callable[[str], None] | None
) -> None:
    try:
        server = await serve(api, config.host, config.port, limits)
    except OSError as e:
        raise UserError(
            f"cannot listen: {e.strerror or e}",
            f"{config.host}:{config.port}",
            "choose another --port; 0 takes a free one",
        ) from e
    over, now = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (now if over.is_set() else over).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # Windows; not the main thread
            asyncio.get_running_loop().add_signal_handler(number, stop)
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"http://{host}:{server.sockets[0].getsockname()[1]}"
    console.info(f"{api.speaker.name} answers at {address}/v1 (OpenAI's protocol); talk to it at {address}/")
    if api.speaker.tools is not None and (off := api.speaker.tools.off()):
        console.info(off)
    console.info("Ctrl-C stops it")
    if ready is not None:
        ready(address)
    try:
        await over.wait()
    finally:
        server.close()  # not wait_closed(): a client that keeps its connection open would keep the server too
    if api.going:
        console.info(f"{api.going} being answered; Ctrl-C again cuts them off")
    await api.finish(_GRACE, now)
    console.info("stopped")
