"""Where archives are shipped to: a bucket (s3.py), or a folder here.

    s3://bucket/prefix        file:///mnt/other/prefix

Invariants:
- An object appears whole or not at all, also after a crash.
- Every error is one of ship/errors.py. A URL holds no credential, so it can be shown anywhere.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypedDict, final
from urllib.parse import unquote, urlsplit

from amberdb._shared.files import is_staged, replace_file_parts
from amberdb.ship.errors import (
    ShipError,
    TargetAccessError,
    TargetMissingError,
    TargetUnreachableError,
    TargetUrlError,
)

if TYPE_CHECKING:
    from collections.abc import Generator

HELP: Final = "write s3://bucket/prefix, or file:///folder with the whole path"


class S3Options(TypedDict, total=False):
    """What the environment does not say (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, ...)."""

    endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str
    session_token: str


class Target(Protocol):
    """A flat store of objects, by names with slashes. Threads may share it."""

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        ...

    def put(self, name: str, parts: Iterable[bytes], size: int) -> None:
        """Creates or replaces an object."""
        ...

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of an object: `length`, if it is as long. TargetMissingError without an object."""
        ...

    def objects(self) -> Iterator[tuple[str, int]]:
        """Names and sizes of all objects. TargetMissingError without the bucket or folder."""
        ...

    def delete(self, names: list[str]) -> None:
        """Removes objects in this order, or in one step; one that is missing is fine."""
        ...


def target_of(url: str, s3: S3Options | None = None) -> Target:
    """The target of a URL. Raises TargetUrlError, ShipExtraError; nothing is connected to."""
    try:
        parts = urlsplit(url)
        has_extra = bool(parts.query or parts.fragment or parts.username or parts.password)
    except ValueError:
        raise TargetUrlError(f"the target is no URL: {HELP}") from None
    if has_extra or "@" in parts.netloc:  # the message has nothing of it: it may be a secret
        raise TargetUrlError(
            f"the target may have a bucket and a prefix, and nothing else: {HELP}; credentials "
            "are given in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or as options"
        )
    path = unquote(parts.path)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or s3:
            raise TargetUrlError(f"the target {url} is no folder of this machine: {HELP}")
        return FolderTarget(path)
    if parts.scheme == "s3" and parts.netloc:
        from amberdb.ship.s3 import S3Target

        return S3Target(parts.netloc, path.strip("/"), _checked_options(s3 or {}))
    raise TargetUrlError(f"the target {url} is neither a bucket nor a folder: {HELP}")


def _checked_options(options: Mapping[str, object]) -> dict[str, str]:
    for name in options:
        if name not in S3Options.__annotations__:
            known = ", ".join(S3Options.__annotations__)
            raise TargetUrlError(f"unknown option {name!r} of the target: the options are {known}")
    return {name: str(value) for name, value in options.items() if value is not None}


@final
class FolderTarget:
    """A folder, which has to exist: one that is missing may be a disk that is not mounted."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(os.path.normpath(folder))
        self.url = f"file://{self._folder}"

    def put(self, name: str, parts: Iterable[bytes], size: int) -> None:
        with self._errors():
            path = self._folder / name
            if not path.parent.is_dir():
                path.parent.mkdir()
            replace_file_parts(path, parts)

    def read(self, name: str, offset: int, length: int) -> bytes:
        with self._errors(), (self._folder / name).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def objects(self) -> Iterator[tuple[str, int]]:
        with self._errors():
            for chain in sorted(entry for entry in self._folder.iterdir() if entry.is_dir()):
                for path in sorted(chain.iterdir()):
                    with suppress(FileNotFoundError):  # removed meanwhile
                        if not is_staged(path.name):
                            yield f"{chain.name}/{path.name}", path.stat().st_size

    def delete(self, names: list[str]) -> None:
        with self._errors():
            for name in names:
                (self._folder / name).unlink(missing_ok=True)
            for parent in {(self._folder / name).parent for name in names}:
                with suppress(OSError):  # there are others in it
                    parent.rmdir()

    @contextmanager
    def _errors(self) -> "Generator[None]":
        try:
            yield
        except ShipError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            raise TargetMissingError(
                f"{error.filename or self.url} does not exist: create the folder {self._folder}, "
                "or mount its disk"
            ) from error
        except PermissionError as error:
            raise TargetAccessError(
                f"{error.filename or self.url} cannot be used by this user: correct its permissions"
            ) from error
        except OSError as error:
            raise TargetUnreachableError(
                f"{error.filename or self.url}: {error.strerror or error}"
            ) from error
