"""Downbeat tracking online: beats with their positions in the bar a while after they were heard.

After each frame there is a best path through all frames so far (Viterbi). Later frames change its recent part most. So
beats are reported once they are `delay` old, as the best path then has them. If nothing is reported before the end,
they are the beats of the best path through everything.

To go on, the recursion needs no more than the value of each state in one frame. Frames whose beats were all reported
are dropped, and these values kept. The other frames are decoded again from there when more come, with exactly the
result of decoding everything.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from allin1_core.dbn.checks import MOST_FRAMES, real_number
from allin1_core.dbn.decoding import Span
from allin1_core.dbn.downbeat_tracking import DBNDownBeatTrackingProcessor, beats_of_path
from allin1_core.dbn.hidden_markov_model import NO_PATH
from allin1_core.dbn.viterbi import load_kernel, viterbi

# Frames are dropped this many at a time: each time costs as much as decoding some twenty.
_FRAMES_LEFT_BEHIND = 100


class OnlineDownBeatTracker:
    """Beats and downbeats of a stream, each reported once, `delay` after it.

    It keeps its place in a stream: each stream needs one of its own.

    Parameters
    ----------
    decoder : DBNDownBeatTrackingProcessor
        What decodes. Its threshold is not looked at, as the end of a stream is not known: all frames are decoded.
    delay : float
        Seconds, from 0. With a delay of the whole stream the beats are those of the decoder with threshold 0.

    Raises
    ------
    ValueError
        If the delay is no number of seconds.
    """

    def __init__(self, decoder: DBNDownBeatTrackingProcessor, delay: float) -> None:
        most = MOST_FRAMES / float(decoder.fps)
        real_number("delay", delay, "seconds, from 0", lambda seconds: 0 <= seconds < most)
        self._decoder = decoder
        self._kernel = load_kernel(decoder.choice.backend)
        self._delay = round(delay * float(decoder.fps))
        self.reset()

    def reset(self) -> None:
        """Begin another stream."""
        self._frames = np.empty((0, 2))
        self._first = 0
        self._values = [hmm.log_initial for hmm in self._decoder.hmms]
        self._last_beat = -np.inf
        self._lost = False

    def process(self, activations: Any) -> np.ndarray:
        """Beats that the next frames make old enough.

        Parameters
        ----------
        activations : float (num_frames, 2)
            Of the next frames, as the decoder takes them. Logarithms are taken in the precision of the first.

        Returns
        -------
        float64 (num_beats, 2)
            Time in seconds from the beginning of the stream, and position in the bar. As paths change, positions may
            not follow from those reported before; beats closer to the last one than `max_bpm` allows are left out.

        Raises
        ------
        ValueError
            If the activations have another shape or hold what is no probability.
        """
        array = self._decoder.hmms[0].observation_model.check(activations)
        if self._first + len(self._frames) == 0:  # whole numbers would round what follows
            self._frames = self._frames.astype(array.dtype if array.dtype.kind == "f" else float)
        self._frames = np.concatenate([self._frames, array.astype(self._frames.dtype)])
        settled = len(self._frames) - self._delay
        if settled <= 0 or len(array) == 0:
            return np.empty((0, 2))
        beats = self._report(settled)
        if settled >= _FRAMES_LEFT_BEHIND:
            self._leave_behind(settled - 1)  # a change of beat is told by the frame before it
        return beats

    __call__ = process

    def finish(self) -> np.ndarray:
        """All other beats, and the end of the stream: what comes then begins another."""
        is_silent = self._first == 0 and not self._frames.any()  # as offline: no beats, and no warning
        beats = np.empty((0, 2)) if is_silent else self._report(len(self._frames))
        self.reset()
        return beats

    def _report(self, settled: int) -> np.ndarray:
        """Beats in the first so many of the kept frames that were not reported before."""
        decoder = self._decoder
        found = [
            viterbi(self._kernel, hmm.chains, hmm.observation_model.log_densities(self._frames), values)
            for hmm, values in zip(decoder.hmms, self._values, strict=True)
        ]
        weighted = np.array([log_probability for _, log_probability in found]) + decoder.log_weights
        best = int(np.argmax(weighted))
        if weighted[best] == -np.inf:
            if not self._lost:
                warnings.warn(
                    f"{NO_PATH}. There are no more beats in this stream", RuntimeWarning, stacklevel=3
                )
            self._lost = True
            return np.empty((0, 2))
        span = Span(self._frames, self._first, None)
        beats = beats_of_path(decoder.hmms[best], found[best][0], span, decoder.correct)
        beats = beats[beats[:, 0] < settled]
        beats[:, 0] += self._first
        # In frames: times are rounded, and where every interval is the shortest one, some would seem shorter.
        shortest = min(hmm.chains.intervals[0] for hmm in decoder.hmms)
        beats = beats[beats[:, 0] >= self._last_beat + shortest]
        self._last_beat = beats[-1, 0] if len(beats) else self._last_beat
        return beats / (float(decoder.fps), 1)

    def _leave_behind(self, number: int) -> None:
        for index, (hmm, values) in enumerate(zip(self._decoder.hmms, self._values, strict=True)):
            last = np.empty(len(values))
            left = hmm.observation_model.log_densities(self._frames[:number])
            viterbi(self._kernel, hmm.chains, left, values, last=last)
            self._values[index] = last
        self._first += number
        self._frames = self._frames[number:]
