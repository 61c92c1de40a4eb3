"""`s3://bucket/prefix`: a model's folder in S3, or in a store that speaks its protocol.

obstore speaks it outside the interpreter: a start that fetches goes on importing meanwhile.
`AWS_ENDPOINT_URL` names another store, as it does for AWS' own tools.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from provider_aws.missing_packages import needing_extra
from provider_aws.sessions import open_session
from provider_core import ConfigurationError
from provider_core.sources.remote import MAX_FILES, RemoteFile, SourceUnavailable

if TYPE_CHECKING:  # comes with the extra
    from obstore import ObjectMeta
    from obstore.store import S3Store

_PIECE_BYTES = 2**20
_CLIENT: Any = {  # a TypedDict that cannot be imported
    "connect_timeout": "5s",
    "timeout": "120s",  # of a whole range
    "allow_http": True,  # which only AWS_ENDPOINT_URL can ask for
}
_NO_RETRIES: Any = {"max_retries": 0}  # `provider_core.sources` tries again, from where it stopped
_CREDENTIALS_KEPT = timedelta(minutes=5)
_MESSAGE_CHARS = 200
_STATUS = re.compile(r"status code: (\d{3})")


class S3Folder:
    """Such a folder.

    Args:
        uri: A bucket and maybe a prefix, with or without `/` at the end.

    Raises:
        ConfigurationError: It names no bucket, or a package is missing.
    """

    def __init__(self, uri: str) -> None:
        url = urlsplit(uri)
        if not url.netloc or url.query or url.fragment:
            raise ConfigurationError(f"{uri!r} is not of the form s3://bucket/prefix")
        self.uri = uri
        self._prefix = url.path.strip("/")
        with needing_extra(uri):
            self._store = _open_store(url.netloc, self._prefix)

    def list_files(self) -> Sequence[RemoteFile]:
        """All objects below the prefix; those that stand for folders are none."""
        import obstore

        objects: list[ObjectMeta] = []
        with _store_errors(self.uri):
            for page in obstore.list(self._store):
                objects += page
                if len(objects) > MAX_FILES:
                    break
        if len(objects) > MAX_FILES:  # a bucket has millions
            raise ConfigurationError(
                f"{self.uri} holds more than {MAX_FILES} objects; name a folder"
            )
        folders = {str(above) for each in objects for above in PurePosixPath(each["path"]).parents}
        return [
            RemoteFile(path=each["path"], size_bytes=each["size"], version=each["e_tag"] or "")
            for each in objects
            if each["path"] and each["path"] not in folders
        ]

    def read(self, file: RemoteFile, start: int, end: int) -> Iterator[memoryview]:
        """Read a range of an object, if it is still the one that was listed."""
        import obstore

        options: Any = {"range": (start, end)}  # a TypedDict that cannot be imported
        if file.version:
            options["if_match"] = file.version
        with _store_errors(self.uri):
            answer = obstore.get(self._store, file.path, options=options)
            for piece in answer.stream(min_chunk_size=_PIECE_BYTES):
                yield memoryview(piece)


def _open_store(bucket: str, prefix: str) -> "S3Store":
    """The store; who we are comes from the environment, the container, the machine or a profile.

    obstore knows all of these but profiles, which only people's own machines have.
    """
    from obstore.store import S3Store

    options: Any = {}  # as above
    if _has_profiles():
        options = _profile_options()
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options=_CLIENT,
        retry_config=_NO_RETRIES,
        **options,
    )


def _has_profiles() -> bool:
    """Whether this is a person's machine."""
    try:
        return (Path.home() / ".aws").is_dir()
    except RuntimeError:  # a user of whom the system knows no more than a number
        return False


def _profile_options() -> dict[str, Any]:
    """Region and credentials as botocore finds them, which looks at the environment first."""
    session = open_session()
    region, credentials = session.get_config_variable("region"), session.get_credentials()
    options: dict[str, Any] = {} if region is None else {"region": region}
    if credentials is None:
        return options

    def provide() -> dict[str, Any]:
        now = credentials.get_frozen_credentials()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_KEPT,
        }

    return {**options, "credential_provider": provide}


@contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    """Say what obstore says in this project's words.

    Raises:
        ConfigurationError: The object is not there, may not be read, or is another by now.
        SourceUnavailable: Anything else.
    """
    from obstore.exceptions import PermissionDeniedError, PreconditionError, UnauthenticatedError

    denied = f"{uri}: it may not be read: s3:ListBucket and s3:GetObject are needed"
    absent = f"{uri}: there is no such bucket or object"
    try:
        yield
    except FileNotFoundError:
        raise ConfigurationError(absent) from None
    except (PermissionDeniedError, UnauthenticatedError):
        raise ConfigurationError(denied) from None
    except PreconditionError:
        raise ConfigurationError(f"{uri} changed while it was fetched; start again") from None
    except Exception as error:  # what becomes of a broken connection depends on when it breaks
        text = str(error)
        status = _STATUS.search(text)  # obstore has classes for answers to `get` alone
        if status is not None and status[1] in {"401", "403"}:
            raise ConfigurationError(denied) from None
        if status is not None and status[1] == "404":
            raise ConfigurationError(absent) from None
        if "incorrectly configured region" in text:
            raise ConfigurationError(f"{uri} is in another region: set AWS_REGION") from None
        raise SourceUnavailable(text[:_MESSAGE_CHARS]) from error
