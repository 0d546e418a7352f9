"""uvicorn on a thread, with the connection's transport within reach of the application.

uvicorn is used as it is, but for three things: its protocol puts the transport into the
scope, its main loop wakes up at once when the emulator is closed, and its shutdown drops
connections instead of waiting for them, since a stalled answer never ends by itself.
"""

from __future__ import annotations

__all__ = ["ServerThread"]

import asyncio
import contextlib
import socket
import ssl
import threading

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from apex_llm.emulator.playback import TRANSPORT_KEY

_TICK_SECONDS = 0.5


class ServerThread(threading.Thread):
    """Serves one listening socket until ``stop``."""

    def __init__(
        self, application: Starlette, listener: socket.socket, *, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(name="apex-llm-emulator", daemon=True)
        self.ready: threading.Event = threading.Event()
        self.failure: BaseException | None = None
        self._listener = listener
        config = uvicorn.Config(
            application,
            http=_Protocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,  # the application sends the time of its own clock
            proxy_headers=False,
            timeout_keep_alive=60,
        )
        if ssl_context is not None:
            config.load()
            config.ssl = ssl_context  # uvicorn's own arguments take files only
        self._server = _Server(config, self.ready)
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        """The thread's body."""
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 # handed to whoever waits for the start
            self.failure = error
        finally:
            self._listener.close()
            self.ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        """Close every connection and end the thread."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                loop.call_soon_threadsafe(self._server.ask_to_exit)
        self.join()


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, TRANSPORT_KEY: transport}
        super().connection_made(transport)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: threading.Event) -> None:
        super().__init__(config)
        self._ready = ready
        self._exit = asyncio.Event()

    def ask_to_exit(self) -> None:
        self.should_exit = True
        self._exit.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        self._ready.set()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exit.wait(), _TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # Once the protocols know that their connections are gone, uvicorn takes the end of a task for granted.
        await asyncio.sleep(0)
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
