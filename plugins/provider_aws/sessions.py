"""Who we are and where, as AWS' own tools find it out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # comes with the extra
    from botocore.session import Session

_REGION = ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)


def open_session() -> "Session":
    """A session of botocore's that knows `AWS_REGION`, as AWS' other SDKs do and Lambda sets it.

    botocore itself reads `AWS_DEFAULT_REGION` alone; a profile's region comes after both.
    """
    import botocore.session

    return botocore.session.get_session({"region": _REGION})
