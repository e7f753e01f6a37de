"""The engine process as this program shares it: one worker for all runs, every message to the run it belongs to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from medlord.errors import EngineError

from .translation import _

if TYPE_CHECKING:
    from medlord.client import EngineClient
    from medlord.conditions import Conditions
    from medlord.protocol import Message
    from medlord.recipe import Recipe
    from medlord.volumes import Volume

Take = Callable[["Message"], None]
LogTaker = Callable[[str], None]


class Engine:
    """Hands requests to an `EngineClient` and its messages to who asked; made for one thread, Slicer's main thread.

    `client_factory` makes the client at the first run and again after `close`; the default makes one for the Python
    of `installation.engine_python`.
    """

    def __init__(self, client_factory: Callable[[], EngineClient] | None = None):
        self._factory = client_factory or _default_client
        self._client: EngineClient | None = None
        self._takers: dict[str, Take] = {}
        # A taker that raises must not lose the messages behind its own.
        self._waiting: deque[Message] = deque()
        self._log_takers: list[LogTaker] = []
        self._making_client = False

    @property
    def pid(self) -> int | None:
        """Process number of the worker, None while none runs."""
        return self._client.pid if self._client is not None else None

    @property
    def alive(self) -> bool:
        """True while a worker runs, so that a question costs no start of one."""
        return self.pid is not None

    @property
    def ready(self) -> bool:
        """True when the worker has loaded torch and can begin at once."""
        return self._client is not None and self._client.ready is not None

    @property
    def busy(self) -> bool:
        """True while an answer is awaited."""
        return bool(self._takers)

    def add_log_taker(self, take: LogTaker) -> None:
        """`take` gets each line of the worker's log, from `poll`."""
        self._log_takers.append(take)

    def remove_log_taker(self, take: LogTaker) -> None:
        """Undo `add_log_taker`."""
        self._log_takers.remove(take)

    def submit_synthesis(self, conditions: Conditions, take: Take, **options: Any) -> str:
        """Start a synthesis; `take` gets its messages from `poll`: any "progress", then one "result" or "error".

        `options` are those of `EngineClient.submit_synthesis`, as are the errors raised.
        """
        return self._submit(take, lambda client: client.submit_synthesis(conditions, **options))

    def submit_repeat(self, recipe: Recipe | dict, take: Take, **options: Any) -> str:
        """Run a recipe again; messages as with `submit_synthesis`, `options` are those of `submit_repeat`."""
        return self._submit(take, lambda client: client.submit_repeat(recipe, **options))

    def submit_check(self, volume: Volume, take: Take, **options: Any) -> str:
        """Check a CT; messages as with `submit_synthesis`, `options` are those of `medlord.client_check`."""
        from medlord.client_check import submit_check

        return self._submit(take, lambda client: submit_check(client, volume, **options))

    def ask(self, verb: str, take: Take, arguments: dict[str, Any] | None = None) -> str:
        """Send any other verb ("describe", "models"); `take` gets its one "result" or "error" from `poll`."""
        return self._submit(take, lambda client: client.submit(verb, arguments))

    def poll(self) -> None:
        """Deliver what came since the last call, without waiting. Call it every 50 ms or so while a run is going."""
        if self._client is None:
            return
        self._waiting.extend(self._client.poll())
        while self._waiting:
            message = self._waiting.popleft()
            ended = message.type in ("result", "error")
            take = self._takers.pop(message.id, None) if ended else self._takers.get(message.id)
            if take is not None:
                take(message)

    def cancel(self, job: str) -> None:
        """Ask a run to stop; its "error" message of the code "cancelled" follows."""
        if self._client is not None:
            self._client.cancel(job)

    def close(self) -> None:
        """End the worker; runs that are going end with an error."""
        if self._client is None:
            return
        self._client.close()
        self.poll()
        self._client = None

    def _submit(self, take: Take, send: Callable[[EngineClient], str]) -> str:
        if self._client is None:
            self._make_client()
        job = send(self._client)
        self._takers[job] = take
        return job

    def _make_client(self) -> None:
        """An installation shows questions and processes events meanwhile: what is pressed then must not begin another.

        Raises `EngineError` for that.
        """
        if self._making_client:
            raise EngineError(_("The engine is being installed or started; wait for it, then press again."))
        self._making_client = True
        try:
            self._client = self._factory()
        finally:
            self._making_client = False
        self._client.log = self._tell_log

    def _tell_log(self, line: str) -> None:
        for take in tuple(self._log_takers):
            take(line)


_shared: Engine | None = None


def shared_engine() -> Engine:
    """The engine of this program: panel and Python console use the same worker, so weights are loaded once."""
    global _shared
    if _shared is None:
        _shared = Engine()
    return _shared


def _default_client() -> EngineClient:
    from medlord.client import EngineClient

    from .installation import engine_environment, engine_python, ensure_engine

    ensure_engine()
    return EngineClient(engine_python(), environment=engine_environment())
