"""Where vectors will stand in a prompt."""

from provider_core.server.images import make_room


def test_each_placeholder_is_repeated_for_its_vectors() -> None:
    """Positions are those of the longer prompt."""
    ids, spans = make_room((5, 9, 6, 9), 9, [2, 3])
    assert ids == (5, 9, 9, 6, 9, 9, 9)
    assert spans == [(1, 2), (4, 3)]
