import click

from contracts.topics import event_map


@click.group()
def topics() -> None:
    """The topics everything crosses a boundary by."""


@topics.command(name="map")
def show_map() -> None:
    """Print who writes and who reads which events, as Markdown."""
    click.echo(event_map())
