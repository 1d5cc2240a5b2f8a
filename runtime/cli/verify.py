"""`unblur verify`: check a bundle on this machine."""

import typer

from unblur.runtime.cli.options import JsonOption, ModelArgument, PairsOption, ThreadsOption, with_overrides
from unblur.runtime.console import log_on_stderr, print_json, progress, stages_on
from unblur.runtime.model.open_model import find_model
from unblur.runtime.quality.pairs import check_pairs, find_pairs
from unblur.runtime.quality.verify import verify as verify_model
from unblur.runtime.quality.verify_report import document, print_report
from unblur.runtime.spec import SpecOverrides


@with_overrides
def verify(
    model: ModelArgument,
    pairs: PairsOption = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Check a bundle on this machine: every byte, golden vectors, parity, engines, quality on pairs.

    Exit code 0 if all passed, 1 if something did not, 2 if it could not be checked.
    """
    path = find_model(model)
    found = [] if pairs is None else find_pairs(pairs)
    with log_on_stderr(), progress() as bar:
        stage = stages_on(bar)
        if found:
            check_pairs(found, stage("reading pairs", len(found)))
        result = verify_model(path, found, stage, threads=threads, overrides=overrides)
    if json:
        print_json(document(result))
    else:
        print_report(model, result)
    if not result.passed:
        raise typer.Exit(1)
