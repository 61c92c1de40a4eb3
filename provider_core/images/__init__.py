"""Images of clients: from the bytes they send, or the addresses they name, to pixels."""
