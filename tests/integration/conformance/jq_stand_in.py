"""The four filters of a readiness script that jq would run, for machines without jq."""

import json
import re
import sys
from typing import Any


def apply(filter_text: str, document: Any, variables: dict[str, str]) -> Any:
    """Give what jq would give for `path // default`, or for a count of items with one id.

    Raises:
        ValueError: It is another filter.
    """
    if filter_text == "[.data[] | select(.id == $m)] | length":
        return sum(item["id"] == variables["m"] for item in document["data"])
    match = re.fullmatch(r'(\S+) // "(\w+)"', filter_text)
    if match is None:
        raise ValueError(filter_text)
    found = document
    for step in re.findall(r"\w+", match[1]):
        try:
            found = found[int(step)] if step.isdigit() else found.get(step)
        except (AttributeError, LookupError):
            found = None
    return match[2] if found in {None, False} else found


def main() -> None:
    """Read arguments and input as jq does; print as `jq -r`."""
    arguments = [each for each in sys.argv[1:] if each != "-r"]
    variables: dict[str, str] = {}
    if arguments[0] == "--arg":
        variables[arguments[1]] = arguments[2]
        arguments = arguments[3:]
    sys.stdout.write(f"{apply(arguments[0], json.load(sys.stdin), variables)}\n")


if __name__ == "__main__":
    main()
