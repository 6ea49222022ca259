"""A bucket of S3, or of a server that speaks its protocol, through obstore.

Invariants:
- Only this module imports obstore.
- No text of obstore or of the server reaches a message, a log or a traceback, but for the server's
  code of an error: texts may have credentials.
- A call ends within a minute and a half; whoever calls tries again.
"""

import os
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, final

from amberdb.ship.errors import (
    ShipError,
    ShipExtraError,
    TargetAccessError,
    TargetMissingError,
    TargetUnreachableError,
    TargetUrlError,
)

WHOLE_BYTES_MAX: Final = 8 << 20
"""An object up to this size is sent in one request."""
PARTS_MAX: Final = 9000
"""S3 takes 10,000 of an object."""
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_ACCESS: Final = {
    *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"),
    *("InvalidToken", "AllAccessDisabled", "AccountProblem", "RequestTimeTooSkewed"),
    *("AuthorizationHeaderMalformed", "InvalidSecurity", "NotSignedUp"),
}
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CLIENT: Final = {"connect_timeout": "5s", "timeout": "40s"}
_RETRY: Final = {"max_retries": 1, "retry_timeout": timedelta(seconds=20)}


@final
class S3Target:
    """A prefix of a bucket. The bucket has to exist."""

    def __init__(self, bucket: str, prefix: str, options: dict[str, str]) -> None:
        """Raises ShipExtraError, TargetUrlError."""
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError:
            raise ShipExtraError(
                'a target s3:// needs the package obstore: pip install "amberdb[s3]"'
            ) from None
        self._obstore: Any = obstore
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        endpoint = options.pop("endpoint", None) or _endpoint()
        config: dict[str, Any] = {**options, "virtual_hosted_style_request": endpoint is None}
        if endpoint is not None:
            if not endpoint.startswith(("http://", "https://")):
                raise TargetUrlError("the endpoint is no URL: write https://host, or http://host")
            config["endpoint"] = endpoint
        client = {**_CLIENT, "allow_http": (endpoint or "").startswith("http://")}
        make: Any = S3Store
        try:
            self._store = make(
                bucket,
                prefix=prefix or None,
                config=config,
                client_options=client,
                retry_config=_RETRY,
            )
        except Exception:
            raise TargetUrlError(
                f"{self.url}: obstore refuses the bucket, the endpoint or an option: correct them"
            ) from None

    def put(self, name: str, parts: Iterable[bytes], size: int) -> None:
        with self._errors():
            if size <= WHOLE_BYTES_MAX:
                self._obstore.put(self._store, name, b"".join(parts), use_multipart=False)
            else:
                chunk = max(WHOLE_BYTES_MAX, size // PARTS_MAX)
                self._obstore.put(
                    self._store, name, iter(parts), chunk_size=chunk, max_concurrency=2
                )

    def read(self, name: str, offset: int, length: int) -> bytes:
        with self._errors(name):
            return bytes(self._obstore.get_range(self._store, name, start=offset, length=length))

    def objects(self) -> Iterator[tuple[str, int]]:
        with self._errors():
            for page in self._obstore.list(self._store, chunk_size=1000):
                for each in page:
                    yield each["path"], each["size"]

    def delete(self, names: list[str]) -> None:
        with self._errors():
            for start in range(0, len(names), 1000):
                self._obstore.delete(self._store, names[start : start + 1000])

    @contextmanager
    def _errors(self, name: str | None = None) -> Generator[None]:
        try:
            yield
        except ShipError:
            raise
        except Exception as error:
            raise self._typed(error, name) from None

    def _typed(self, error: Exception, name: str | None) -> ShipError:
        text = str(error)
        found = _CODE.search(text)
        code = found[1] if found else ""
        kind = type(error).__name__
        said = f" ({code})" if code else ""
        if code in _ACCESS or kind in ("PermissionDeniedError", "UnauthenticatedError"):
            return TargetAccessError(
                f"{self.url} denies access{said}: correct AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, the region, or the rights of this user"
            )
        if code == "NoSuchBucket" or (isinstance(error, FileNotFoundError) and name is None):
            return TargetMissingError(
                f"the bucket {self._bucket} does not exist: create it, or correct the URL or the "
                "endpoint"
            )
        if isinstance(error, FileNotFoundError):
            return TargetMissingError(f"{self.url}/{name} does not exist: list the target again")
        if "169.254." in text:  # asked for credentials, where a machine of a cloud would have some
            return TargetAccessError(
                f"{self.url}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if code:
            return TargetUnreachableError(f"{self.url} cannot serve a request{said}: see its log")
        return TargetUnreachableError(
            f"{self.url} does not answer: start the server, or correct the endpoint"
        )


def _endpoint() -> str | None:
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
