"""Charts and the HTML page: whole, escaped, and loading nothing from anywhere."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from provider_core.loadtest.charts import charts
from provider_core.loadtest.page import page
from provider_core.loadtest.report import Report
from provider_core.loadtest.summary import Slo
from provider_core.loadtest.svg import Chart, Series, render, round_ticks
from tests.unit.loadtest.made_reports import NOISY, made_point, made_report, made_round

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "!doctype"}


def sweep(*labels: str) -> Report:
    """Three numbers of clients, two prompt lengths, two rates."""
    slo = Slo(ttft=1.0)
    points = [
        made_point(
            *(made_round(label, ttft_s=0.1 * clients, slo=slo) for label in labels),
            concurrency=clients,
            prompt_tokens=prompt,
        )
        for prompt in ("128", "512±64")
        for clients in (1, 4, 16)
    ]
    points += [
        made_point(
            *(made_round(label, slo=slo) for label in labels), concurrency=None, rate=float(rate)
        )
        for rate in (1, 2)
    ]
    return made_report(*points, labels=labels, slo=slo)


class Tags(HTMLParser):
    """Checks that elements are closed in order, and keeps what could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loading: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element opens."""
        if tag in {"script", "link", "iframe", "img", "object", "embed", "image", "use", "base"}:
            self.loading.append((tag, None))
        names = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}
        self.loading += [(name, value) for name, value in attrs if name in names]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content."""
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """An element closes."""
        assert self.open.pop() == tag


def read(html: str) -> Tags:
    """The tags of a page."""
    tags = Tags()
    tags.feed(html)
    tags.close()
    return tags


def test_the_page_is_whole_and_loads_nothing() -> None:
    """It can be sent to somebody without a network."""
    html = page(sweep("A", "B"))
    tags = read(html)

    assert (tags.open, tags.loading) == ([], [])
    assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg|h:1)", html) == []
    assert html.count("<svg") == len(charts(sweep("A", "B")))


def test_names_cannot_break_out_of_the_page() -> None:
    """A label and a server's words are anybody's text."""
    evil = "</title><script src=//x>&"
    report = made_report(made_point(made_round(evil), concurrency=2), labels=(evil,))
    html = page(report)

    assert read(html).loading == []
    assert "&lt;script src=//x&gt;&amp;" in html


def test_every_way_of_the_sweep_has_its_charts() -> None:
    """Clients, rates and prompt lengths, each with throughput, goodput and latencies."""
    names = {chart.name for chart in charts(sweep("A"))}
    measured = ("throughput", "goodput", "ttft", "itl", "e2e")

    assert names == {
        *(f"{what}-by-{axis}" for what in measured for axis in ("concurrency", "rate", "prompt")),
        "trade-by-concurrency",
        "trade-by-rate",
        *(f"{what}-distribution" for what in ("itl",)),
        "timeline",
    }


def test_a_line_holds_what_was_measured() -> None:
    """One for each server and prompt length; p95 is dashed."""
    found = {chart.name: chart for chart in charts(sweep("A", "B"))}
    ttft = found["ttft-by-concurrency"]

    assert [series.name for series in ttft.series[:4]] == [
        "A, 128 in p50",
        "A, 128 in p95",
        "B, 128 in p50",
        "B, 128 in p95",
    ]
    assert [series.is_dashed for series in ttft.series[:2]] == [False, True]
    assert ttft.series[0].points == [(1, 100.0), (4, 400.0), (16, 1600.0)]


def test_a_single_point_has_no_line() -> None:
    """But its distributions and its time."""
    names = [chart.name for chart in charts(made_report(made_point(made_round())))]

    assert names == ["itl-distribution", "timeline"]


def test_noise_is_marked_inside_each_chart() -> None:
    """A chart is easily cut out of its page."""
    report = made_report(*(made_point(made_round(machine=NOISY), concurrency=c) for c in (1, 2)))

    assert {chart.note for chart in charts(report)} == {"Measured on a machine that was not quiet."}
    assert 'class="warning"' in page(report)


def test_a_refused_comparison_has_no_charts() -> None:
    """Two lines side by side are a comparison."""
    rounds = [made_round("A", machine=NOISY), made_round("B")]
    report = made_report(*(made_point(*rounds, concurrency=c) for c in (1, 2)), labels=("A", "B"))
    html = page(report)

    assert charts(report) == []
    assert "no comparison" in html
    assert "<svg" not in html
    assert "tok/s" not in html


def drawing(chart: Chart) -> ET.Element:
    """A chart as XML."""
    return ET.fromstring(render(chart))  # noqa: S314 - it is our own


def markers(chart: Chart) -> list[tuple[float, float]]:
    """Where its points lie."""
    found = drawing(chart).iter(f"{SVG}circle")
    return [(float(circle.attrib["cx"]), float(circle.attrib["cy"])) for circle in found]


@pytest.mark.parametrize("chart", charts(sweep("A", "B")), ids=lambda chart: str(chart.name))
def test_every_chart_is_well_formed_and_inside_its_frame(chart: Chart) -> None:
    """As a file of its own, too."""
    box = drawing(chart).attrib["viewBox"].split()

    for x, y in markers(chart):
        assert 0 <= x <= float(box[2])
        assert 0 <= y <= float(box[3])


def test_doublings_are_evenly_spaced_on_a_logarithmic_axis() -> None:
    """And twice as much is twice as high."""
    series = Series("a", [(1, 10.0), (2, 20.0), (4, 40.0)])
    chart = Chart(name="x", title="t", x_label="x", y_label="y", series=[series], x_scale="log")
    (x1, y1), (x2, y2), (x3, y3) = markers(chart)

    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11)
    assert 2 * (y1 - y2) == pytest.approx(y2 - y3, abs=0.3)


@pytest.mark.parametrize(
    ("high", "ticks"),
    [
        (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (10, [0, 2, 4, 6, 8, 10]),
        (11, [0, 5, 10, 15]),
        (0.07, [0, 0.02, 0.04, 0.06, 0.08]),
        (260, [0, 100, 200, 300]),
    ],
)
def test_ticks_are_round_and_reach_the_highest_value(high: float, ticks: list[float]) -> None:
    """Steps of 1, 2 or 5."""
    assert round_ticks(high) == pytest.approx(ticks)
