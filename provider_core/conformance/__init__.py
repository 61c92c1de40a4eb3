"""What a marketplace's reviewers try, run against a live endpoint: `provider check`.

Nothing here knows our own server: it sees a URL and bytes that arrive. A `Probe` asks, a `Check`
says what must hold and returns what it measured, a `Report` is all of their results, and a
`Checklist` is a document of questions whose lines the results and the provider's facts answer.
"""
