"""Load on any OpenAI-compatible server, measured from outside: what `provider bench` runs.

Nothing here knows our own server: it sees a URL, bytes that arrive, and `/proc`. A `Request` is
what one client asks, a `Reply` what the clock saw of its answer, a `Summary` what a round of
replies comes to, and a `Report` all rounds of a sweep over one server or two.
"""
