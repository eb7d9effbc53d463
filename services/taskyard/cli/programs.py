"""`taskyard dev` and `taskyard bench`: programs of their own, loaded only when they are asked for."""

from pathlib import Path
from typing import Annotated

import typer


def dev(
    data: Annotated[Path, typer.Option(help="The folder that holds everything.")] = Path(".taskyard"),
    http_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="0: that of the last run if free, else any free one.")
    ] = 0,
    nats_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="0: that of the last run if free, else any free one.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=0, help="How many agents to run.")] = 1,
    separate: Annotated[bool, typer.Option("--separate", help="A process for each service.")] = False,
) -> None:
    """Run the whole system here in the foreground, with its own NATS and PostgreSQL, until INT or TERM."""
    from taskyard.dev.app import main

    raise typer.Exit(main(data=data, http_port=http_port, nats_port=nats_port, workers=workers, separate=separate))


def bench(context: typer.Context) -> None:
    """Measure throughput and latency; arguments go to the benchmark (--json prints one object as the last line)."""
    from taskyard.bench.app import main

    raise typer.Exit(main(context.args))
