"""Options of the command line that say what is known of the beats: tempo range, bar lengths, anchors."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from allin1_core.settings import Settings

Parsed = TypeVar("Parsed")


def add_hints(parser: argparse.ArgumentParser) -> Callable[..., argparse.Action]:
    """Add the options that hold for any number of songs, by the names of `analyze`; returns their group's `add`."""
    add = parser.add_argument_group("what is known of the beats").add_argument
    defaults = Settings()
    add("--min-bpm", type=float, default=defaults.min_bpm, help="slowest tempo (default: %(default)s)")
    add("--max-bpm", type=float, default=defaults.max_bpm, help="fastest tempo (default: %(default)s)")
    meters = defaults.decoding["beats_per_bar"]
    add(
        "--beats-per-bar",
        type=_whole_numbers,
        metavar="LENGTHS",
        default=meters,
        help=f"bar lengths to choose from (default: {','.join(map(str, meters))})",
    )
    add(
        "--meter-weights",
        type=_numbers,
        metavar="WEIGHTS",
        help="prior weight of each of them, such as 1,2 (default: equal)",
    )
    add(
        "--meter-change-prob",
        type=float,
        metavar="P",
        help="probability that the bar length changes at a bar line, such as 0.001 (default: one throughout)",
    )
    return add


def add_anchors(add: Callable[..., argparse.Action]) -> None:
    """Add the option that belongs to one song, to the group of the hints."""
    add(
        "--anchor",
        dest="anchors",
        action="append",
        type=_anchor,
        metavar="TIME[:POSITION]",
        help="a beat of the song that is known: seconds, and position in the bar from 1; may be repeated",
    )


def _whole_numbers(text: str) -> list[int]:
    return _parsed(
        text, lambda: [int(number) for number in text.split(",")], "whole numbers with commas, such as 3,4"
    )


def _numbers(text: str) -> list[float]:
    return _parsed(
        text, lambda: [float(number) for number in text.split(",")], "numbers with commas, such as 1,2"
    )


def _anchor(text: str) -> tuple[float, int]:
    time, _, position = text.partition(":")
    return _parsed(
        text, lambda: (float(time), int(position or 0)), "seconds, or seconds:position, such as 12.34:1"
    )


def _parsed(text: str, parse: Callable[[], Parsed], expected: str) -> Parsed:
    try:
        return parse()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected {expected}") from error
