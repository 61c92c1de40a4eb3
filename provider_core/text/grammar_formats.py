"""Formats of strings that can be enforced: exactly, or as a part that is surely valid.

A year has 366 days in some years only, a minute has 61 seconds at one minute of the day, and a
host name is of limited length: what no short regular expression can say is left out, not left open.
"""

_LEAP_YEAR = r"(\d\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
_DATE = (
    r"(\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])"
    r"|(0[469]|11)-(0[1-9]|[12]\d|30)"
    r"|02-(0[1-9]|1\d|2[0-8]))"
    rf"|{_LEAP_YEAR}-02-29)"
)
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"
_LABEL = r"[A-Za-z0-9](-?[A-Za-z0-9]){0,30}"  # no two hyphens in a row, so no punycode
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,31}"

FORMAT_PATTERNS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}[Tt]{_TIME}$",
    "hostname": rf"^{_LABEL}(\.{_LABEL}){{0,3}}$",
    "email": rf"^{_ATOM}(\.{_ATOM})?@{_LABEL}(\.{_LABEL}){{1,2}}$",
}
"""Narrowed ones, by name.

RFC 3339 without leap seconds, RFC 1123 up to 250 characters, RFC 5321 without quotes.
"""

ENFORCED_FORMATS = frozenset({"duration", "ipv4", "ipv6", "uri", "uuid"})
"""Those that the grammar compiler knows exactly."""

NO_STRANGE_SPACE = "^[^\r\u2028\u2029\ufeff]*$"
"""Beside a pattern with `.` or `\\S`, which in ECMA-262 do not match these, and here would."""
