# SPDX-License-Identifier: MIT
"""The steps in their order, each with its progress line and its log."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from types import ModuleType

from trit.base.errors import EXIT_OK, CommandError
from trit.base.files import check_output
from trit.base.places import BUILD_DIR, CACHE_DIR, ENGINE_DIR, STAMPS
from trit.base.processes import signals_end_us
from trit.base.progress import StepLine
from trit.models.registry import registry
from trit.models.registry.tables import terminal_table
from trit.setup import answer, build, conversion, engine, model, selftest, tools, tuning, wheel
from trit.setup.context import Options, Setup, write_stamp
from trit.setup.lock import only_one
from trit.setup.options import parse_options
from trit.setup.suite import run_suite


def main(argv: Sequence[str] | None = None) -> int:
    """Run set-up; what ``setup_env.py`` calls."""
    options = parse_options(sys.argv[1:] if argv is None else argv)
    if options.list_models:
        print(terminal_table(registry()))
        return EXIT_OK
    try:
        with signals_end_us():
            setup = _run_steps(options)
    except CommandError as error:
        for line in error.tail:
            print(f"    {line}", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("stopped; run the same command again and it carries on where it was", file=sys.stderr)
        raise
    return run_suite(setup) if options.test else EXIT_OK


def _run_steps(options: Options) -> Setup:
    setup = Setup(options)
    model.check_options(setup)
    wheel.check_options(setup)
    check_output("--log-dir", setup.log("setup"), in_folder=True)
    programs = wheel if options.wheel else build
    makers: list[ModuleType] = [tools, engine, model, conversion, programs, tuning]
    if setup.quant_type is None:
        # What to convert to is found by measuring.
        makers = [tools, engine, model, programs, tuning, conversion]
    if options.wheel:
        makers.remove(engine)
    trials: list[ModuleType] = [selftest] if options.no_run or options.test else [selftest, answer]
    total = len(makers) + len(trials)
    with only_one() as setup.keep_open:
        if options.clean:
            _clean()
        remove_leftovers()
        for number, step in enumerate(makers, 1):
            _run_step(setup, step, number, total)
    # The trials write nothing that another set-up could trip over.
    setup.keep_open = ()
    for number, step in enumerate(trials, len(makers) + 1):
        _run_step(setup, step, number, total)
    if setup.report:
        print(setup.report, flush=True)
    return setup


def _run_step(setup: Setup, step: ModuleType, number: int, total: int) -> None:
    with StepLine(number, total, step.NAME, step.DEED) as line:
        line.done(step.run(setup, line))


def remove_leftovers() -> None:
    """Remove what earlier runs left under temporary names when they were killed outright."""
    unpacked = BUILD_DIR.parent.glob(f"{BUILD_DIR.name}.partial")
    for leftover in [*CACHE_DIR.glob("*.partial"), *STAMPS.glob("*.partial"), *unpacked]:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _clean() -> None:
    """Delete what set-up builds; models, the environment and the downloaded source stay."""
    for folder in (BUILD_DIR, ENGINE_DIR):
        shutil.rmtree(folder, ignore_errors=True)
    for stamp in STAMPS.glob("*.json"):
        # An outdated stamp, unlike none, says that its file was made here and may be made anew.
        write_stamp(stamp, {"key": "cleaned"})
