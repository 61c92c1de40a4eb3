"""How far a build is, out of the phases that TensorRT announces."""

from provider_tensorrt.builder_feedback import BuildProgress


def test_steps_of_a_phase_add_up() -> None:
    """The part that is done grows with each."""
    seen: list[float] = []
    progress = BuildProgress(seen.append)

    progress.start("build", None, 4)
    for step in range(4):
        progress.complete("build", step)

    assert seen == [0.25, 0.5, 0.75, 1.0]


def test_a_phase_within_a_step_moves_its_parent() -> None:
    """By the step's share of the whole."""
    seen: list[float] = []
    progress = BuildProgress(seen.append)

    progress.start("build", None, 2)
    progress.complete("build", 0)
    progress.start("tactics", "build", 4)
    progress.complete("tactics", 1)
    progress.finish("tactics")
    progress.complete("build", 1)

    assert seen == [0.5, 0.75, 1.0]


def test_what_was_reported_is_never_taken_back() -> None:
    """Phases beside each other are not announced in advance."""
    seen: list[float] = []
    progress = BuildProgress(seen.append)

    progress.start("first", None, 2)
    progress.complete("first", 0)
    progress.finish("first")
    progress.start("second", None, 4)
    for step in range(4):
        progress.complete("second", step)

    assert seen == [0.5, 0.75, 1.0]


def test_a_phase_that_nobody_announced_changes_nothing() -> None:
    """The builder's threads may report late."""
    seen: list[float] = []
    progress = BuildProgress(seen.append)

    progress.complete("gone", 3)
    progress.finish("gone")

    assert seen == []
