"""The words of reports/bench.md that a reader may not know, in the order in which they turn up."""

from __future__ import annotations

GLOSSARY = {
    "exact, fast": "the two precisions an analysis can be asked for; exact is the default, and each has bounds that it "
    "declares and is held to",
    "fused": "our own compiled kernels on the CPU, which do a frame's steps in one pass; what `auto` picks there",
    "computed by, own operations": "torch and MLX hand on what the fused kernels compute where that is faster; what "
    "their own operations make of the same stage has rows of its own",
    "device mlx": "where MLX runs by default: the GPU on a Mac with Metal, and on other machines the CPU",
    "fold": "one of the eight networks, trained on different parts of the data, whose outputs an analysis averages",
    "golden": "a result recorded once from all-in-one-infer 3.1.0 with the published weights, kept beside the tracks",
    "[3, 4], [4]": "the bar lengths that the decoder tries; an analysis tries three and four beats in a bar",
    "construction": "making a decoder (its states and transitions) before anything is decoded",
    "local maxima": "the first step of finding sections: frames whose boundary probability is the largest around",
    "log10 of magnitude": "the unit of a log spectrogram, log10(1 + magnitude); 1e-6 of it is a millionth of a decade",
    "median, IQR": "the middle time of the rounds, and the width of the middle half of them",
    "audio s/s": "seconds of audio worked off in a second",
}
