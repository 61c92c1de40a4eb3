"""Whether the server of this container lives; a platform that is named asks that itself."""

import os
import sys
from urllib.request import urlopen

if not os.environ.get("PROVIDER_PLATFORM"):
    port = os.environ.get("PROVIDER_PORT") or 8000
    try:
        urlopen(f"http://127.0.0.1:{port}/livez", timeout=2).close()
    except OSError as error:
        sys.exit(str(error))
