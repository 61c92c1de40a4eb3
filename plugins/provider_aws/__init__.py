"""Amazon Web Services: models from S3, secrets from Secrets Manager and Parameter Store.

Who may read what is AWS' business: the usual environment variables, profiles and roles say who we
are. `docs/models.md` and `docs/keys.md` are the pages for operators.
"""

from pathlib import Path

from provider_core import hookimpl
from provider_core.sources.remote import FetchProgress


@hookimpl
def fetch_model(uri: str, cache_dir: Path, progress: FetchProgress) -> Path | None:
    """Bring `s3://bucket/prefix` here."""
    if not uri.startswith("s3://"):
        return None
    from provider_aws.s3 import S3Folder
    from provider_core.sources.fetch import fetch_folder

    return fetch_folder(S3Folder(uri), cache_dir, progress)


@hookimpl
def load_secret(uri: str) -> bytes | None:
    """Read `aws-sm://name`, `aws-sm://name#key` or `aws-ssm://name`."""
    if not uri.startswith(("aws-sm://", "aws-ssm://")):
        return None
    from provider_aws.stored_secrets import read_secret

    return read_secret(uri)
