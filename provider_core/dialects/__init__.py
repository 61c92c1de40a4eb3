"""The wire: each dialect as pure functions between bytes and the core's values. No I/O here."""
