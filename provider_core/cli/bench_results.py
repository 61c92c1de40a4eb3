"""What becomes of a report of `provider bench`."""

import typer

from provider_core.cli.outputs import Outputs
from provider_core.loadtest.charts import charts
from provider_core.loadtest.page import page
from provider_core.loadtest.report import Report
from provider_core.loadtest.report_json import report_json
from provider_core.loadtest.svg import render
from provider_core.loadtest.table import notes, tables


def publish(report: Report, outputs: Outputs) -> None:
    """Print the tables unless they would be a comparison that is refused, and write the files.

    Raises:
        ConfigurationError: A file could not be written; the others have been.
    """
    outputs.show(tables(report), notes(report))
    if report.refusal is not None:
        typer.echo(f"provider: {report.refusal}; --allow-noise prints it all the same", err=True)
    outputs.write(
        lambda: report_json(report),
        lambda: page(report),
        lambda: ((chart.name, render(chart)) for chart in charts(report)),
    )
