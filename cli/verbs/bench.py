"""fingerprint bench: how well do fingerprints tell derivatives from strangers?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerprint.bench.plan import Plan
    from fingerprint.bench.results import Results
    from fingerprint.bench.splits import Splits

app = typer.Typer(rich_markup_mode=None, add_completion=False)
FAMILIES = "characteristic,natural"


class Scale(StrEnum):
    """How long is trained."""

    small = "small"
    full = "full"


class Only(StrEnum):
    """One part of the work."""

    build = "build"
    judge = "judge"


Paths = list[Path] | None


@app.command(no_args_is_help=True)
@flags.with_common
def bench(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the zoo and the results.", show_default=False)
    ],
    owner: Annotated[
        Paths, typer.Option("--owner", metavar="MODEL", help="An owner's model. Repeatable.", show_default=False)
    ] = None,
    unrelated: Annotated[
        Paths,
        typer.Option(
            "--unrelated", metavar="PATH", help="Models of strangers: files, folders. Repeatable.", show_default=False
        ),
    ] = None,
    data: Annotated[
        Paths, typer.Option("--data", metavar="PATH", help="Labelled images. Repeatable.", show_default=False)
    ] = None,
    held_out: Annotated[
        Paths,
        typer.Option(
            "--held-out",
            metavar="PATH",
            show_default=False,
            help="Labelled images for probes and evaluation. Default: a quarter of --data.",
        ),
    ] = None,
    families: Annotated[str, typer.Option("--families", metavar="A,B", help="Judged one by one.")] = FAMILIES,
    combination: Annotated[str, typer.Option("--combination", metavar="A,B", help="Judged together.")] = FAMILIES,
    queries: Annotated[str, typer.Option("--queries", metavar="N,N", help="Budgets of queries.")] = "20,50,100,200",
    how: Annotated[
        list[str] | None,
        typer.Option("--how", metavar="SPEC", help="A transformation, as in derive. Repeatable.", show_default=False),
    ] = None,
    train: Annotated[int, typer.Option("--train", metavar="N", min=0, help="Strangers trained from scratch.")] = 6,
    scale: Annotated[Scale, typer.Option("--scale", help="How long everything is trained.")] = Scale.small,
    only: Annotated[
        Only | None, typer.Option("--only", help="Build the zoo, or judge what there is.", show_default=False)
    ] = None,
    screen: Annotated[int, typer.Option("--screen", metavar="N", min=0, help="Nets that screen candidates.")] = 3,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Decides all that is random.")] = 1,
    threads: Annotated[int, typer.Option("--threads", metavar="N", min=1, help="Threads of training and asking.")] = 1,
    *,
    common: flags.Common,
) -> None:
    """Measure fingerprints on derivatives and strangers.

    Builds a zoo below --out: owners, strangers, and what every transformation makes of them; asks all of them and
    writes results.json, results.md and plots. What is built is kept, so that a run that was stopped goes on where it
    was. Without --owner it is a small zoo on scikit-learn's digits.

    \b
    Examples:
      fingerprint bench --out bench/
      fingerprint bench --out bench/ --owner model.pt2 --unrelated strangers/ --data images.zip
      fingerprint bench --out bench/ --owner model.pt2 --data images/ --how prune:magnitude:0.5 --how finetune:all
      fingerprint bench --out bench/ --owner model.pt2 --data images/ --only judge -f json
    """
    from cli.output import emit
    from cli.terminal import Terminal
    from fingerprint.engine.environment import spin_briefly
    from fingerprint.errors import UsageError

    wanted = common.targets()
    if not owner and (unrelated or data or held_out or how):
        raise UsageError("--unrelated, --data, --held-out and --how need an --owner")
    spin_briefly()
    from fingerprint.bench.run import Options, build, run, write
    from fingerprint.probes.registry import split_families

    options = Options(
        split_families(families),
        split_families(combination),
        _numbers(queries),
        screen,
        build=only is not Only.judge,
        threads=threads,
    )
    plan, splits = _digits(seed) if not owner else _own(owner, unrelated, data, held_out, how, train, scale, seed)
    with Terminal(quiet=common.quiet) as terminal:
        folder = out / f"{plan.name}-{scale}"
        if only is Only.build:
            made, missing = build(plan, splits, folder, options, terminal)
            counts = {"built": len(made), "not_made": {n.name: n.reason for n in missing}}
            emit(wanted, {"zoo": counts}, lambda page: f"{len(made)} models built, {len(missing)} not made\n")
            return
        results = run(plan, splits, folder, options, terminal)
        written = write(results, folder)
    document = {"results": results.to_dict(), "files": [str(path) for path in written]}
    emit(wanted, document, lambda page: _summary(results) + "".join(f"{path}\n" for path in written))


def _numbers(text: str) -> list[int]:
    from fingerprint.errors import UsageError

    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = [0]
    if found[0] < 1:
        raise UsageError(f"--queries {text!r} is no list of numbers", remedy="For example: --queries 20,50,100")
    return found


def _digits(seed: int) -> tuple[Plan, Splits]:
    from fingerprint.bench import digits

    return digits.plan(seed), digits.images()


def _own(
    owners: Sequence[Path],
    unrelated: Sequence[Path] | None,
    data: Sequence[Path] | None,
    held_out: Sequence[Path] | None,
    how: Sequence[str] | None,
    train: int,
    scale: str,
    seed: int,
) -> tuple[Plan, Splits]:
    from fingerprint.bench.own import plan_of
    from fingerprint.bench.splits import load_splits
    from fingerprint.errors import UsageError

    if not data:
        raise UsageError("the benchmark needs labelled images", remedy="Give --data PATH.")
    plan = plan_of(owners, unrelated or (), train, scale, seed, how or ())
    return plan, load_splits(data, held_out or (), plan.spec.image_shape, plan.classes)


def _summary(results: Results) -> str:
    from cli.output import columns

    main = [m for m in results.methods if m.queries == results.main_queries]
    lines = [("method", "AUC (mean of rows)", "TPR without a false positive")]
    lines += [
        (m.method, f"{m.mean_auc:.3f}", f"{m.tpr_at_0.value:.3f}") for m in sorted(main, key=lambda m: -m.mean_auc)
    ]
    return f"{results.main_queries} queries\n" + columns(lines)
