"""The engine's side of its front processes: starts them, answers what they ask, replaces those that die or stand still.

One process runs the interpreter on one core at a time, whatever the number of cores. Front processes take from it what
needs no model and no index: HTTP, tokenising, writing answers (docs/decisions/0010). Batching, encoding, searching,
metrics, releases and all other paths stay in the engine, so there is one queue, one cache and one place that counts.
"""

import asyncio
import logging
import socket
import subprocess
import sys
from functools import partial
from time import monotonic

import orjson

from service.connection import Work
from service.draining import DrainingServer
from service.encoder import Encoder
from service.errors import ClientGone, RequestError, StartupError
from service.link import Frame, Kind, Link, pack_answer, pack_refusal, unpack_request
from service.service import Service
from service.settings import FrontSettings

START_S = 30.0
"""How long a front process may take to say that it accepts connections."""
PING_S = 0.5
MOST_UNANSWERED = 4
"""Pings, counted and not timed: after a pause of the whole machine a front process is as late as the engine."""
LEAST_LIFE_S = 5.0
"""One that dies sooner is started again after a while, lest the engine do nothing else."""
LONGEST_WAIT_S = 5.0
END_S = 5.0
"""How long one whose link is closed may take to end."""
HANDED_OVER_BYTES = 8
"""Beside the descriptor of a connection: its number."""

logger = logging.getLogger(__name__)


class FrontLink(Link):
    """The link to one front process."""

    def __init__(self, service: Service, server: DrainingServer, sockets: socket.socket) -> None:
        super().__init__()
        self._service = service
        self._server = server
        self._sockets = sockets
        self._works: dict[int, Work] = {}
        self._first_bytes: dict[int, bytes] = {}
        """Of connections whose socket has not come yet, by their number."""
        self._handed_over: dict[int, socket.socket] = {}
        """The other half likewise."""
        self.unanswered = 0
        """Pings."""
        self.ready = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket, and connections that come beside it."""
        super().connection_made(transport)
        asyncio.get_running_loop().add_reader(self._sockets, self._take_sockets)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """Give up what the process had asked: its clients are gone with it."""
        asyncio.get_running_loop().remove_reader(self._sockets)
        self._sockets.close()
        for work in list(self._works.values()):
            work.resolve(ClientGone("the front process was lost"))
        for connection in self._handed_over.values():
            connection.close()
        self.lost.set()

    def received(self, frame: Frame) -> None:
        """Take what the process says."""
        if frame.kind is Kind.REQUEST:
            self._take_request(frame)
        elif frame.kind is Kind.CANCEL:
            if (work := self._works.get(frame.number)) is not None:
                work.resolve(ClientGone("the connection was closed"))
        elif frame.kind is Kind.CONNECTION:
            self._first_bytes[frame.number] = frame.payload
            self._take_connection(frame.number)
        elif frame.kind is Kind.PONG:
            self.unanswered = 0
        elif frame.kind is Kind.HELLO:
            self.ready.set()

    def ping(self) -> None:
        """Ask whether the process still turns."""
        self.unanswered += 1
        self.send(Kind.PING)

    def tokenize_with(self, tokenizer: bytes) -> None:
        """Have queries tokenised as the release does that most of them are for."""
        self.send(Kind.TOKENIZER, 0, tokenizer)

    def _take_request(self, frame: Frame) -> None:
        origin, body = unpack_request(frame.payload)
        refusal = self._service.shed(body, str(origin.caller)) if origin.traceparent is None else None
        if refusal is not None:
            self._answer(frame.number, refusal)
            return
        work = self._service.handle(body, origin, partial(self._answer, frame.number), pack_answer)
        if work is not None:
            self._works[frame.number] = work

    def _answer(self, number: int, outcome: bytes | RequestError) -> None:
        self._works.pop(number, None)
        if not isinstance(outcome, RequestError):
            self.send(Kind.ANSWER, number, outcome)
        elif not isinstance(outcome, ClientGone):  # which nobody reads
            self.send(Kind.REFUSAL, number, pack_refusal(outcome))

    def _take_sockets(self) -> None:
        try:
            while True:
                number, descriptors, _, _ = socket.recv_fds(self._sockets, HANDED_OVER_BYTES, 1)
                if not number:  # the process is gone, which its link says too
                    asyncio.get_running_loop().remove_reader(self._sockets)
                    return
                [descriptor] = descriptors
                connection = socket.socket(fileno=descriptor)
                connection.setblocking(False)
                self._handed_over[int.from_bytes(number, "little")] = connection
                self._take_connection(int.from_bytes(number, "little"))
        except BlockingIOError:
            return

    def _take_connection(self, number: int) -> None:
        """Serve a client once its socket and what was read from it are both there."""
        if number in self._first_bytes and number in self._handed_over:
            self._server.take(self._handed_over.pop(number), self._first_bytes.pop(number))


class Fronts:
    """All front processes, from `start` to `stop`."""

    def __init__(self, service: Service, server: DrainingServer, listener: socket.socket) -> None:
        """Prepare; nothing runs before `start`. The processes share the listener."""
        self._service = service
        self._server = server
        self._listener = listener
        self._links: set[FrontLink] = set()
        self._keeping: list[asyncio.Task[None]] = []
        self._stopping = False
        service.metrics.fronts.observe(lambda: sum(link.ready.is_set() for link in self._links))
        service.releases.on_change.append(self._tokenizer_changed)

    async def start(self) -> None:
        """Start all; they accept connections when this returns.

        Raises:
            StartupError: one does not come up.
        """
        count = self._service.settings.server.front_processes
        started: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in range(count)]
        self._keeping = [asyncio.create_task(self._keep(one)) for one in started]
        await asyncio.gather(*started)

    def drain(self) -> None:
        """Have them close connections after their next answer."""
        for link in self._links:
            link.send(Kind.DRAIN)

    async def stop(self) -> None:
        """End all, each after what it has accepted is answered."""
        self._stopping = True
        self._listener.close()
        for link in self._links:
            link.send(Kind.STOP)
        await asyncio.gather(*self._keeping)

    async def _keep(self, started: "asyncio.Future[None]") -> None:
        """Keep one front process running."""
        wait_s = 0.0
        while not self._stopping:
            began = monotonic()
            try:
                await self._run(started)
            except (StartupError, OSError) as error:
                if not started.done():
                    started.set_exception(StartupError(str(error)))
                    return
                logger.error("%s", error)  # noqa: TRY400 - it says all
            if self._stopping:
                return
            self._service.metrics.fronts.restarted()
            wait_s = 0.0 if monotonic() - began > LEAST_LIFE_S else min(LONGEST_WAIT_S, 2 * wait_s + 0.1)
            await asyncio.sleep(wait_s)

    async def _run(self, started: "asyncio.Future[None]") -> None:
        """Run a front process until it ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        our_sockets, their_sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        our_sockets.setblocking(False)
        link = FrontLink(self._service, self._server, our_sockets)
        with theirs, their_sockets:
            process = self._spawn(theirs, their_sockets)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
            self._links.add(link)
            await self._wait_until_ready(link, process)
            if not started.done():
                started.set_result(None)
            await self._watch(link, process)
        finally:
            self._links.discard(link)
            link.close()
            await asyncio.to_thread(_end, process)

    def _spawn(self, link: socket.socket, sockets: socket.socket) -> "subprocess.Popen[bytes]":
        settings = self._service.settings
        said = FrontSettings(server=settings.server, limits=settings.limits).model_dump_json()
        descriptors = [one.fileno() for one in (self._listener, link, sockets)]
        command = [sys.executable, "-m", "service.front", *map(str, descriptors), said]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=descriptors)  # noqa: S603 - our own

    async def _wait_until_ready(self, link: FrontLink, process: "subprocess.Popen[bytes]") -> None:
        """Wait for its HELLO.

        Raises:
            StartupError: it ended, or takes too long.
        """
        await _wait_for_any(link.ready, link.lost, seconds=START_S)
        if link.lost.is_set() or not link.ready.is_set():
            process.kill()
            code = await asyncio.to_thread(process.wait)
            raise StartupError(f"a front process did not start (exit code {code}); what it says is above")
        if (release := self._service.release) is not None:
            link.tokenize_with(_describe(release.encoder))

    async def _watch(self, link: FrontLink, process: "subprocess.Popen[bytes]") -> None:
        """Wait for its end, and bring that about where it stands still."""
        while not link.lost.is_set():
            if link.unanswered > MOST_UNANSWERED:
                logger.error("front process %d stands still, and is replaced", process.pid)
                process.kill()
                return
            link.ping()
            await _wait_for_any(link.lost, seconds=PING_S)
        if not self._stopping:
            code = await asyncio.to_thread(process.wait)
            logger.error("front process %d has ended with code %d, and is replaced", process.pid, code)

    def _tokenizer_changed(self) -> None:
        if (release := self._service.release) is not None:
            for link in self._links:
                link.tokenize_with(_describe(release.encoder))


def _describe(encoder: Encoder) -> bytes:
    """From what a front process makes the same tokenizer."""
    tokenizer = encoder.query_tokenizer
    _, rules, prompt = tokenizer.key
    said = {"tag": tokenizer.tag, "directory": str(encoder.directory), "rules": rules.model_dump(), "prompt": prompt}
    return orjson.dumps(said)


async def _wait_for_any(*events: asyncio.Event, seconds: float) -> None:
    """Wait until one is set, or the time is over."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a process whose link is closed, by which it ends."""
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
