"""`reprise feed` and `reprise mail`: what the server does by itself, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["feed_app", "mail_app"]

feed_app = typer.Typer(help="The feed of new papers.", no_args_is_help=True)
mail_app = typer.Typer(help="Subscriptions by mail.", no_args_is_help=True)


@feed_app.command("update")
def update(
    file: Annotated[
        list[Path] | None, typer.Option(help="Read this file of papers instead of asking sources.", metavar="FILE")
    ] = None,
    insist: Annotated[bool, typer.Option("--insist", help="Ask also sources that wish to be left alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask the sources for new papers."""
    import os

    from reprise.site.database import Database
    from reprise.site.feed.sources import File, Source, configured
    from reprise.site.feed.update import update as ask

    sources: list[Source] = [File(path) for path in file] if file else configured()
    outcomes = ask(Database(), sources, insist=insist)
    if as_json:
        print(json.dumps([vars(outcome) for outcome in outcomes], indent=1))
    else:
        for outcome in outcomes:
            print(outcome)
        if not outcomes:
            print("No source is set: REPRISE_FEED is off.")
        if not file and not os.environ.get("REPRISE_CONTACT"):
            print("Set REPRISE_CONTACT to an address where the sources' keepers can reach you.")
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


@mail_app.command("send")
def send() -> None:
    """Send the digests that are due, as the server does every few minutes."""
    from reprise.site.database import Database
    from reprise.site.mail import transport
    from reprise.site.mail.digests import deliver
    from reprise.site.settings import Settings, signing_key

    print(deliver(Database(), transport.configured(), signing_key(), Settings.from_environment().base))


@mail_app.command("test")
def test(address: Annotated[str, typer.Argument(help="Where to.")]) -> None:
    """Send one message, to see whether the settings of the mail server are right."""
    import time

    from reprise.site.mail import transport
    from reprise.site.mail.messages import trial
    from reprise.site.settings import Settings

    way = transport.configured()
    way.send(trial(Settings.from_environment().base, address, time.time()), address, lambda: None)
    print(f"Written to {way.folder}." if isinstance(way, transport.Outbox) else "The mail server has taken it.")
