"""Requests to a server of models with the protocol of OpenAI.

    request -> POST {url} -> body -> read(body)

Needs the extra `models` (httpx).

Invariants:
- A request is made again, after a pause that doubles, when there is no answer, after 429 and 5xx,
  and when read() raises TryAgain; any other answer is an error at once.
- The key is sent to the server, and is in no error.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from amberdb import AmberError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

ATTEMPTS: Final = 3
TIMEOUT_S: Final = 60.0
PAUSE_S: Final = 0.5
"""The pause before the second attempt; it doubles for each further one."""
PAUSE_MAX_S: Final = 30.0
"""The longest pause, also when a server sends a longer Retry-After."""


class TryAgain(Exception):
    """The answer is none that can be used."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


@final
class ModelServer:
    """One address of a server. Errors are of the type `error`."""

    def __init__(
        self,
        url: str,
        error: type[AmberError],
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        try:
            import httpx  # the extra `models`
        except ImportError as missing:
            raise error('models need httpx: pip install "amberdb[models]"') from missing

        self._url = url
        self._error = error
        self._attempts = max(1, attempts)
        self._sleep = sleep
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(timeout=timeout_s, headers=headers)

    def ask(self, request: dict[str, Any], read: Callable[[bytes], T]) -> T:
        """What `read` makes of the answer."""
        pause_s = PAUSE_S
        for left in reversed(range(self._attempts)):
            try:
                return read(self._answer(request))
            except TryAgain as again:
                if not left:
                    raise self._error(
                        f"{self._url} gave no valid answer in {self._attempts} attempts: {again}"
                    ) from again.__cause__
                self._sleep(min(again.after_s or pause_s, PAUSE_MAX_S))
                pause_s *= 2
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _answer(self, request: dict[str, Any]) -> bytes:
        """The body of a response with status 200. Raises TryAgain, and the error."""
        import httpx

        try:
            response = self._client.post(self._url, json=request)
        except httpx.TransportError as error:
            raise TryAgain(f"{type(error).__name__}: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self._error(f"{self._url} cannot be requested: {error}") from error
        if response.status_code == 429 or response.status_code >= 500:
            raise TryAgain(f"status {response.status_code}", _retry_after_s(response))
        if response.status_code != 200:
            raise self._error(
                f"{self._url} answered with status {response.status_code}: {response.text[:200]}",
                status=response.status_code,
            )
        return response.content


def _retry_after_s(response: "httpx.Response") -> float | None:
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:  # no header, or a date
        return None
