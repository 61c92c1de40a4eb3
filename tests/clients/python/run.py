"""Runs a conversation with one published client and prints what its user would see, as JSON.

Standard input is `{"client", "url", "seeing_url", "key"}`; a client is a module beside this one,
whose `cases(url, key)` gives named programs. Printed is what each returns, or the class of what it
raises. The model behind `seeing_url` sees images.
"""

import importlib
import json
import sys


def main() -> None:
    """Run all cases of one client."""
    wanted = json.load(sys.stdin)
    client = importlib.import_module(f"{wanted['client']}_client")
    cases = dict(client.cases(wanted["url"], wanted["key"]))
    cases["seen"] = client.cases(wanted["seeing_url"], wanted["key"])["picture"]
    for name, case in cases.items():
        try:
            seen = {"seen": case()}
        except Exception as error:  # noqa: BLE001 - whatever a user would get
            status = getattr(error, "status_code", None) or getattr(error, "code", None)
            seen = {"error": type(error).__name__, "status": status, "message": str(error)[:500]}
        sys.stdout.write(json.dumps({"case": name, **seen}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
