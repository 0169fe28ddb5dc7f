"""The type of `analyze`, for type checkers: one result of one track, a list of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Concatenate, ParamSpec, Protocol, cast, overload

from allin1_core.audio.types import Audio, Stems
from allin1_core.results.result import AnalysisResult
from allin1_core.separation.inputs import Input, PathLike

Options = ParamSpec("Options")


class OneOrMany(Protocol[Options]):
    """A function of tracks. One path is one track, unless it is a pattern: hence ``Any``."""

    @overload  # a str is a sequence of them, too: the first that fits counts
    def __call__(  # type: ignore[overload-overlap]
        self, paths: PathLike, *args: Options.args, **options: Options.kwargs
    ) -> AnalysisResult | Any: ...

    @overload
    def __call__(
        self, paths: Audio | Stems | BinaryIO, *args: Options.args, **options: Options.kwargs
    ) -> AnalysisResult: ...

    @overload
    def __call__(
        self, paths: Sequence[Input], *args: Options.args, **options: Options.kwargs
    ) -> list[AnalysisResult]: ...


def one_or_many(function: Callable[Concatenate[Any, Options], Any]) -> OneOrMany[Options]:
    """The function itself, with that type."""
    return cast("OneOrMany[Options]", function)
