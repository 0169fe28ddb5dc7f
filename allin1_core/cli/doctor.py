"""The subcommand ``doctor``: what is installed, what would run, and the self-test."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
from pathlib import Path
from typing import Any

from allin1_core import __version__, backends
from allin1_core.backends.devices import device_kind
from allin1_core.backends.table import installed_version
from allin1_core.cli.paths import path
from allin1_core.errors import BackendError, printable

HELP = "what is installed, what would run here and why, and whether it computes what it should"
DESCRIPTION = (
    "Say what is installed, what would run for each stage and why, where the weights are, and test it."
)
EPILOG = """\
examples:
  allin1-core doctor                       backends, choices, weights, self-test
  allin1-core doctor --device cuda         what would be chosen for that device
  allin1-core doctor --json                the same for a bug report

Exit status 1 if a part of the self-test fails.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    parser.add_argument(
        "-d", "--device", help="explain the choices for this device (default: the best one here)"
    )
    parser.add_argument("--weights-dir", type=path, help="look for weights in this folder")
    parser.add_argument("--no-self-test", action="store_true", help="do not compute anything")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Examine and print; returns the exit status."""
    if arguments.device is not None:
        device_kind(arguments.device)
    report: dict[str, Any] = {
        "allin1_core": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "libraries": {name: installed_version(name) for name in _libraries()},
        "stages": {stage: _stage(stage, arguments.device) for stage in backends.stages()},
        "weights": _weights(arguments.weights_dir),
    }
    if not arguments.json:
        _print_findings(report)
    checks = []
    if not arguments.no_self_test:
        from allin1_core.self_test import run_self_test

        if not arguments.json:
            print("\nself-test (stored values)")
        for check in run_self_test():
            checks.append(check)
            if not arguments.json:
                found = check.error or f"difference {check.difference:.2g}, bound {check.bound:g}"
                if check.computed_by not in (None, check.backend):
                    found += f", computed by {check.computed_by}"
                verdict = "ok  " if check.passed else "FAIL"
                print(f"  {verdict}  {check.stage:<12}{check.backend:<8}{check.device:<6}{found}", flush=True)
    if arguments.json:
        report["self_test"] = [{**dataclasses.asdict(check), "passed": check.passed} for check in checks]
        print(json.dumps(report, indent=2))
    return 0 if all(check.passed for check in checks) else 1


def _libraries() -> list[str]:
    rows = [row for stage in backends.stages() for row in backends.built_in(stage) if row.extra]
    always = ("numpy", "scipy", "soundfile", "av", "soxr")
    return list(dict.fromkeys([*always, *(row.distribution for row in rows), "matplotlib", "jams"]))


def _stage(stage: str, device: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "backends": {
            name: {
                "installed": backend.installed,
                "version": backend.version if backend.installed else None,
                "devices": list(backend.devices),
                "install": backend.remedy,
            }
            for name, backend in backends.backends(stage).items()
        }
    }
    try:
        found["choice"] = backends.choose(stage, device=device)[1].as_dict()
    except BackendError as error:
        found["error"] = str(error)
    return found


def _weights(weights_dir: Path | None) -> dict[str, str | None]:
    """Where each fold's weights are, looked for in the order of `load_model`; downloads none.

    Raises
    ------
    WeightsError
        If the folder that is named is not there.
    """
    from huggingface_hub import try_to_load_from_cache

    from allin1_core.network.weights import PUBLISHED, REPOSITORY, REVISION, explicit_folder, file_names

    folder, _ = explicit_folder(weights_dir)
    found: dict[str, str | None] = {}
    for fold, published in PUBLISHED.items():
        if folder is not None:
            files = (folder / name for name in file_names(fold))
            found[fold] = next((str(file) for file in files if file.is_file()), None)
        else:
            cached = try_to_load_from_cache(REPOSITORY, published.file, revision=REVISION)
            found[fold] = cached if isinstance(cached, str) else None
    return found


def _instructions(choice: dict[str, Any]) -> str:
    return f", compiled for {choice['instruction_set']}" if choice["instruction_set"] else ""


def _print_findings(report: dict[str, Any]) -> None:
    print(f"allin1-core {report['allin1_core']}, Python {report['python']}, {report['platform']}")
    print("  " + ", ".join(f"{name} {version or '-'}" for name, version in report["libraries"].items()))
    for stage, found in report["stages"].items():
        print(f"\n{stage}")
        for name, backend in found["backends"].items():
            state = backend["version"] if backend["installed"] else f"not installed; {backend['install']}"
            print(f"  {name:<14}{', '.join(backend['devices']):<16}{state}")
        choice = found.get("choice")
        print(
            f"  -> {choice['backend']} on {choice['device']}{_instructions(choice)}: {choice['reason']}"
            if choice
            else f"  -> {found['error']}"
        )
    print("\nweights")
    for fold, file in report["weights"].items():
        where = printable(file or "not here; from the folder named, or downloaded when first needed")
        print(f"  {fold:<18}{where}")
