"""The commands. What they do is in ``reprise.lab``; PyTorch is imported by none of them before it is needed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from reprise import __version__
from reprise.files import home
from reprise.lab import modules, overview, paper as papers, results, words
from reprise.lab.paper import Paper, PaperError
from reprise.site.commands import feed_app, mail_app

app = typer.Typer(
    help="Published papers, performed again: measure what they claim, or use their methods as parts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(feed_app, name="feed")
app.add_typer(mail_app, name="mail")

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

Slug = Annotated[str, typer.Argument(help="The paper, as `reprise list` names it.", metavar="PAPER")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ScaleOption = Annotated[str, typer.Option(help="smoke (seconds), laptop (minutes) or paper (as published).")]


def _version(asked: bool) -> None:
    if asked:
        print(f"reprise {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")]


@app.callback()
def _options(version: Version = False) -> None:
    pass  # an eager option does its work in its callback


def main() -> None:
    """Run the command line; every error ends as one sentence, the traceback in a file."""
    try:
        app()
    except PaperError as error:
        _fail(error, 2)
    except (ModuleNotFoundError, OSError, RuntimeError, ValueError) as error:
        _fail(error, 1)
    finally:
        modules.save_memory()


def _fail(error: Exception, status: int) -> None:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename or home()}"
    errors.print(f"Error: {text}", markup=False, soft_wrap=True)
    if status == 1:
        path = home() / "errors" / "last.txt"
        with contextlib.suppress(OSError):  # no place for the traceback: the sentence has to do
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(traceback.format_exc(), encoding="utf-8")
            errors.print(f"(traceback: {path})", markup=False, soft_wrap=True)
    sys.exit(status)


# Looking around ------------------------------------------------------------------------------------------------------


@app.command("list")
def list_papers(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of the README.")] = False,
    as_json: Json = False,
) -> None:
    """List the papers: headline claim, verdict, age, cost."""
    rows, damaged = overview.rows()
    if as_json:
        print(json.dumps(rows, indent=1))
    elif markdown:
        print("| paper | room | headline claim | verdict | measured | core-minutes |")
        print("| --- | --- | --- | --- | --- | --- |")
        for row in rows:
            minutes = f"{row['core_seconds'] / 60:.0f}" if row["measured"] else ""
            title = f"[{row['title']}](https://arxiv.org/abs/{row['arxiv']}) (`{row['slug']}`)"
            print(f"| {title} | {row['room']} | {row['claim']} | {row['verdict']} | {row['measured']} | {minutes} |")
    else:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("paper", "room", "headline claim", "verdict", "measured", "cost"):
            table.add_column(column, no_wrap=column in ("paper", "room", "measured"))
        for row in rows:
            cost = f"{row['core_seconds'] / 60:.0f} core-min" if row["measured"] else ""
            verdict = f"{words.SYMBOLS[row['verdict'].split()[0]]} {row['verdict']}"
            table.add_row(row["slug"], row["room"], row["claim"], verdict, row["measured"], cost)
        console.print(table)
    for damage in damaged:
        errors.print(f"Error: {damage}", markup=False, soft_wrap=True)
    if damaged:
        raise typer.Exit(1)


@app.command()
def show(slug: Slug, as_json: Json = False) -> None:
    """Show a paper: claims, needs, use, differences, BibTeX."""
    from reprise.lab.search import example

    paper = papers.find(slug)
    status = results.status(paper)
    if as_json:
        claims = [
            {"text": claim.text, "paper": claim.paper, "verdict": judgement.verdict, "reason": judgement.reason}
            for claim, judgement in zip(paper.claims, status.judgements, strict=True)
        ]
        print(
            json.dumps(
                {**overview.row(paper), "summary": paper.summary, "parts": paper.parts, "claims": claims}, indent=1
            )
        )
        return
    console.print(f"[bold]{paper.title}[/bold]")
    console.print(f"{paper.authors}. {paper.venue} {paper.year}, arXiv {paper.arxiv}\n", markup=False)
    console.print(f"{paper.summary}\n", markup=False)
    if status.scale:
        changed = f": {', '.join(status.stale)} changed since" if status.stale else ""
        mark = f" ({status.mark}{changed})" if status.mark else ""
        console.print(f"Measured {status.date} at {status.scale} scale{mark}", markup=False)
    _print_claims(paper, status.judgements, status.scale)
    for identity in paper.identities:
        console.print(f"Proved by a test: {identity.text} ({identity.test})", markup=False)
    console.print("\n[bold]It needs[/bold]")
    for experiment in paper.experiments.values():
        scales = ", ".join(
            f"{name} ({scale.seeds} seed{'s' * (scale.seeds > 1)})" for name, scale in experiment.scales.items()
        )
        data = ", ".join(experiment.data) or "no data"
        console.print(f"  {experiment.name}: {data}; {len(experiment.arms)} arms; {scales}", markup=False)
    console.print("\n[bold]Use it[/bold]")
    for part in paper.parts:
        room, name = part.rsplit(".", 1)
        console.print(f"  from {room} import {name}", markup=False, soft_wrap=True)
    for line in example(paper.parts[0]).splitlines():
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if paper.differences:
        console.print("\n[bold]Where we differ from the paper[/bold]")
        for difference in paper.differences:
            console.print(f"  - {difference}", markup=False)
    if paper.remark:
        console.print("\n[bold]Remark[/bold]")
        console.print(f"  {' '.join(paper.remark.split())}", markup=False)
    console.print(f"\n{words.bibtex(paper)}", markup=False, soft_wrap=True)


def _print_claims(paper: Paper, judgements: Any, scale: str | None, measured: bool = False) -> None:
    """The claims with the paper's number, ours with its interval, and the verdict; of a run, only the measured ones."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim", ratio=1)
    table.add_column(f"ours, at {scale} scale" if scale else "ours", ratio=1)
    for claim, judgement in zip(paper.claims, judgements, strict=True):
        if measured and judgement.verdict == "unmeasured":
            continue
        color = {"holds": "green", "fails": "red"}.get(judgement.verdict, "yellow")
        verdict = f"[{color}]{words.SYMBOLS[judgement.verdict]} {judgement.verdict}[/{color}]"
        printed = f"\n[dim]the paper: {claim.paper}[/dim]" if claim.paper else ""
        numbers = (words.ours(claim, judgement, paper.experiments), judgement.reason)
        table.add_row(verdict, f"{claim.text}{printed}", "\n".join(text for text in numbers if text))
    console.print(table)
    absent = sum(judgement.verdict == "unmeasured" for judgement in judgements)
    if measured and absent:
        console.print(f"{absent} further claims are about experiments that were not run.", style="dim")


@app.command()
def search(query: Annotated[list[str], typer.Argument(help="Words.")], as_json: Json = False) -> None:
    """Find the papers and the parts that do something."""
    from reprise.lab.search import search as find

    everything, _ = papers.all_papers()
    hits = find(" ".join(query), everything)[:10]
    if as_json:
        print(json.dumps([getattr(hit.found, "slug", None) or hit.found.name for hit in hits]))  # type: ignore[union-attr]
        return
    for hit in hits:
        if isinstance(hit.found, Paper):
            console.print(f"[bold]{hit.found.slug}[/bold]  {hit.found.title}")
            console.print(f"    {hit.found.summary}", markup=False)
            console.print(f"    parts: {', '.join(hit.found.parts)}", markup=False)
        else:
            console.print(f"[bold]{hit.found.name}[/bold]  {hit.found.summary}")
    if not hits:
        console.print("Nothing was found; `reprise list` shows every paper.")
        raise typer.Exit(1)


@app.command()
def info(as_json: Json = False) -> None:
    """Show versions, machine, folders and data sets."""
    from reprise.data import store
    from reprise.lab import provenance

    folder = os.environ.get("REPRISE_DATA", "not set")
    facts: dict[str, Any] = {"reprise": __version__, "REPRISE_HOME": str(home()), "REPRISE_DATA": folder}
    facts |= {name: value for name, value in provenance.machine().items() if name != "yardstick"}
    facts |= provenance.packages("python", "torch", "numpy", "scipy", "scikit-learn", "ray")
    facts["devices"] = ", ".join(provenance.devices())
    for name in ("digits", *store.SOURCES):
        facts[f"data {name}"] = store.where(name)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        console.print(f"{name:>20}  {value}", markup=False, soft_wrap=True)


# Measuring -----------------------------------------------------------------------------------------------------------


@app.command()
def run(
    slugs: Annotated[list[str], typer.Argument(help="Papers, or paper/experiment.", metavar="PAPER...")] = [],  # noqa: B006
    everything: Annotated[bool, typer.Option("--all", help="Every paper.")] = False,
    scale: ScaleOption = "laptop",
    arm: Annotated[list[str], typer.Option(help="Only this arm; may be given several times.")] = [],  # noqa: B006
    seeds: Annotated[str, typer.Option(help="A count (5), a list (0,3,7) or a range (1000-1004).")] = "",
    settings: Annotated[list[str], typer.Option("--set", help="A setting, key=value.")] = [],  # noqa: B006
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[str, typer.Option(help="Of a Ray cluster; without it one is started here.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would run, and for how long.")] = False,
    as_json: Json = False,
) -> None:
    """Train, compare, and print the verdict on every claim."""
    from reprise.data import DataMissing
    from reprise.lab import engines, runner
    from reprise.lab.plan import make_plan, parse_seeds

    if engine not in runner.ENGINES:
        raise PaperError(f"there is no engine {engine!r}{papers.nearest(engine, runner.ENGINES)}")
    if scale not in papers.SCALES:
        raise PaperError(f"there is no scale {scale!r}{papers.nearest(scale, papers.SCALES)}")
    if everything == bool(slugs):
        raise PaperError("name the papers to run, or --all; `reprise list` shows them")
    options = {"address": address} if engine == "ray" and address else {}
    names = list(papers.slugs() if everything else dict.fromkeys(slugs))
    if engine == "local" and not dry_run:
        named = [papers.find(name.partition("/")[0]) for name in names]
        engines.warm_up(experiment.file for paper in named for experiment in paper.experiments.values())
    screen = errors if as_json else console
    plans, costs = [], {}
    for name in names:
        slug, _, experiment = name.partition("/")
        try:
            plan = make_plan(
                papers.find(slug), scale, experiments=[experiment] if experiment else [], arms=arm,
                seeds=parse_seeds(seeds) if seeds else None, overrides=settings, device=device,
            )  # fmt: skip
        except DataMissing as error:
            if not everything:
                raise
            screen.print(f"without {slug}: {error}", markup=False, soft_wrap=True)
            continue
        plans.append(plan)
        costs[name] = _announce(plan, screen)
    if len(plans) > 1:
        unknown = [name for name, seconds in costs.items() if seconds is None]
        known = runner.duration(sum(seconds for seconds in costs.values() if seconds is not None))
        more = f", and what {', '.join(unknown)} will take" if unknown else ""
        screen.print(f"All together: about {known}{more}", markup=False, soft_wrap=True)
    if dry_run:
        return
    output, failed = [], False
    try:
        for plan, outcome in runner.run(plans, screen, engine, **options):
            report = runner.write_report(plan.paper, scale, outcome)
            failed |= bool(outcome.failures)
            if as_json:
                output.append({**runner.machine_readable(plan, outcome), "report": str(report)})
            else:
                _tell(plan, outcome, report, titled=len(plans) > 1)
    except KeyboardInterrupt:
        errors.print("Stopped. Finished trials are kept; the same command goes on from there.")
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(output[0] if len(output) == 1 else output, indent=1))
    if failed:
        raise typer.Exit(1)


def _tell(plan: Any, outcome: Any, report: Path, *, titled: bool) -> None:
    """The verdicts of a run, what failed, and where the report is."""
    console.print(f"\n{plan.paper.slug}" if titled else "", markup=False, style="bold")
    _print_claims(plan.paper, outcome.judgements, plan.scale, measured=True)
    if outcome.failures:
        again = "the same command tries them again"
        console.print(f"\n{len(outcome.failures)} failures; finished trials are kept, {again}.", markup=False)
    console.print(f"\nReport: {report}", markup=False, soft_wrap=True)


def _announce(plan: Any, screen: Console) -> float | None:
    """Say what is going to run, and for how many seconds; None where that is not known."""
    from reprise.lab import runner

    todo, total = runner.pending(plan), sum(len(part.jobs) for part in plan.parts)
    seconds = runner.estimate(plan)
    time = ""
    if todo:
        time = "; how long it takes is not known yet" if seconds is None else f"; about {runner.duration(seconds)}"
    kept = f" ({total - todo} finished before)" if todo < total else ""
    screen.print(f"[bold]{plan.paper.slug}[/bold] at {plan.scale} scale: {total} trials{kept}{time}")
    for name, reason in plan.skipped.items():
        screen.print(f"  without {name}: {reason}", markup=False, soft_wrap=True)
    return seconds


@app.command()
def report(
    slug: Slug,
    scale: ScaleOption = "laptop",
    published: Annotated[bool, typer.Option("--published", help="Of the published results.")] = False,
) -> None:
    """Write the report of a run, or of the published results."""
    from reprise.lab import runner
    from reprise.lab.plan import make_plan

    paper = papers.find(slug)
    if published:
        records = {name: scales[scale] for name, scales in results.published(paper).items() if scale in scales}
        if not records:
            raise PaperError(f"nothing of {paper.slug} has been published at {scale} scale")
    else:
        records = results.collect(make_plan(paper, scale))
        if not any(record["trials"] for record in records.values()):
            raise PaperError(f"{paper.slug} has not been measured here at {scale} scale; run it, or add --published")
    outcome = runner.Outcome(records, results.judge_all(paper, records))
    path = runner.write_report(paper, scale, outcome, published=published)
    console.print(f"Report: {path}", markup=False, soft_wrap=True)


@app.command()
def publish(slug: Slug, scale: ScaleOption = "laptop") -> None:
    """Move a finished run into the paper's results.json."""
    from reprise.lab.publish import publish as publish_paper

    name, _, experiment = slug.partition("/")
    path = publish_paper(papers.find(name), scale, (experiment,) if experiment else ())
    console.print(f"Published: {path}", markup=False, soft_wrap=True)


@app.command()
def confirm(slug: Slug) -> None:
    """Check that old and present code give the same bits."""
    from reprise.lab.publish import confirm as confirm_paper

    answer = confirm_paper(papers.find(slug))
    if answer["equal"]:
        console.print(f"Confirmed: {answer['trials']} trials agree to the last bit.")
    else:
        console.print(f"Not confirmed: {answer['differs']}; measure again with `reprise run {slug}`.", markup=False)
        raise typer.Exit(1)


# The page ------------------------------------------------------------------------------------------------------------


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="The port.", min=1, max=65535)] = 8000,
    host: Annotated[
        str, typer.Option(help="The address; any but this machine's own demands $REPRISE_SECRET.")
    ] = "127.0.0.1",
) -> None:
    """Serve papers, claims, parts and runs as pages."""
    from reprise.site import server

    server.serve(host, port, console)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    url: Annotated[str, typer.Option(help="The address that the files will have, for feeds.")] = "",
) -> None:
    """Write the whole page as files for any web server."""
    from reprise.site.export import export as write

    count, missing = write(folder, url)
    console.print(f"{count} files in {folder}; open {folder / 'index.html'}", markup=False, soft_wrap=True)
    for address in missing:
        errors.print(f"Error: there is no page {address}", markup=False, soft_wrap=True)
    if missing:
        raise typer.Exit(1)


@data_app.command("get")
def data_get(name: Annotated[str, typer.Argument(help="The data set.")]) -> None:
    """Download a data set into the cache."""
    from reprise.data import store

    for path in store.get(name):
        console.print(str(path), markup=False, soft_wrap=True)
