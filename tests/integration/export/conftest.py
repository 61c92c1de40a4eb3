"""The comparison with transformers exists only where torch and transformers are installed.

It is not skipped elsewhere but not collected, because a skip fails continuous integration;
`make check-transformers` installs both and runs it.
"""

from importlib.util import find_spec

collect_ignore = (
    []
    if find_spec("torch") and find_spec("transformers")
    else ["test_against_transformers.py", "test_encoders_against_transformers.py"]
)
