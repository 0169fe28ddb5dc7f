"""The separation that we drive against demucs-infer's own, on networks of real structure with random weights."""

from __future__ import annotations

import copy
import functools
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from allin1_core import backends
from parity.agreement import Agreement, compare
from parity.implementations import any_requested
from parity.inputs import separation
from parity.material import read_stems
from parity.oracles import demucs_apply
from parity.reports.records import ParityRecord, ParityRecorder

torch = pytest.importorskip("torch")
pytest.importorskip("demucs_infer", reason="demucs-infer is not installed (extra 'demucs')")
if any_requested():
    pytest.skip("the separation has no cases for others", allow_module_level=True)

from allin1_core.separation.overlap_add import OverlapAdd, batches, segments_of  # noqa: E402

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SEED = 3
SHIFT = random.Random(SEED).randint(0, 22050)
ROW = backends.get("separation", "demucs-infer")
EXACT = ROW.bounds["exact"].anything
CASES = tuple(separation.mixes(np.zeros((2, 88200), np.float32), SHIFT))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    """The networks are so small that threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def music() -> np.ndarray:
    return separation.stereo_mix(read_stems("jaxius"))[:, 5 * 44100 :]


@functools.cache
def small(seed: int = 0) -> Any:
    return separation.htdemucs(music(), seed, **separation.SMALL)


@functools.cache
def published() -> Any:
    return separation.htdemucs(music(), **separation.PUBLISHED)


@functools.cache
def hybrid() -> Any:
    """Demucs 3 with spectrogram branch, LSTM and local attention: a last segment is as long as it is."""
    from demucs_infer.hdemucs import HDemucs

    options = {"sources": list(separation.SOURCES), "channels": 8, "nfft": 1024, "depth": 5, "segment": 0.5}
    return separation.scaled(HDemucs, music(), 0, **options)


@functools.cache
def time_domain() -> Any:
    """Demucs 3 in the time domain: hears more than a segment."""
    from demucs_infer.demucs import Demucs

    options = {
        "sources": list(separation.SOURCES),
        "channels": 8,
        "depth": 4,
        "lstm_layers": 1,
        "segment": 0.5,
    }
    return separation.scaled(Demucs, music(), 0, **options)


def bag() -> Any:
    from demucs_infer.apply import BagOfModels

    return BagOfModels([small(0), small(1)], [[1.0, 0.0, 0.5, 1.0], [1.0, 1.0, 1.0, 3.0]])


def ours(model: Any, mix: np.ndarray, device: str, overlap: float, **options: Any) -> np.ndarray:
    precision = options.pop("precision", "exact")
    separate = OverlapAdd(model, device=device, precision=precision)
    found = separate(torch.from_numpy(mix), seed=SEED, overlap=overlap, **options)
    return np.asarray(found.cpu())


def theirs(model: Any, mix: np.ndarray, device: str, overlap: float) -> np.ndarray:
    found = demucs_apply.separate(model, torch.from_numpy(mix), seed=SEED, overlap=overlap, device=device)
    return np.asarray(found.cpu())


def check(
    record_parity: ParityRecorder,
    case: str,
    model: Any,
    mix: np.ndarray,
    device: str,
    *,
    overlap: float = 0.25,
    **options: Any,
) -> Agreement:
    expected = theirs(model, mix, device, overlap)
    # Declared for stems within full scale; those of a clipped mix are beyond, where float32 has larger steps.
    allowed = EXACT * max(1.0, float(np.abs(expected).max()))
    agreement = compare(ours(model, mix, device, overlap, **options), expected, allowed=allowed)
    record_parity(
        ParityRecord(
            stage="separation",
            case=case,
            oracle=demucs_apply.ORACLE,
            backend="demucs-infer",
            device=device,
            precision="exact",
            bound=f"<= {EXACT:g} of full scale, or of the loudest sample beyond",
            passed=agreement.passed,
            measures=agreement.measures(),
        )
    )
    agreement.require(case)
    return agreement


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_mixes(case: str, device: str, record_parity: ParityRecorder) -> None:
    mix = separation.mixes(music(), SHIFT)[case]
    check(record_parity, case, small(), mix, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5, 0.75, 0.9])
def test_overlaps(overlap: float, device: str, record_parity: ParityRecorder) -> None:
    check(record_parity, f"overlap {overlap}", small(), music()[:, :60000], device, overlap=overlap)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("most_segments", [1, 2, 5, 100])
def test_sizes_of_batches(most_segments: int, device: str, record_parity: ParityRecorder) -> None:
    mix = music()[:, : 2 * 44100]
    check(record_parity, f"batches of {most_segments}", small(), mix, device, most_segments=most_segments)


def test_a_batch_that_the_memory_does_not_hold_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes, largest = small(), [], 2
    compute = type(model).forward

    def limited(network: Any, inputs: Any) -> Any:
        sizes.append(len(inputs))
        if len(inputs) > largest:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return compute(network, inputs)

    expected = theirs(model, music()[:, : 2 * 44100], "cpu", 0.25)
    monkeypatch.setattr(type(model), "forward", limited)
    found = ours(model, music()[:, : 2 * 44100], "cpu", 0.25, most_segments=100)
    compare(found, expected, allowed=EXACT).require("halved")
    assert sizes == [7, 4, 2, 2, 3, 2, 1]
    largest = 0
    with pytest.raises(torch.cuda.OutOfMemoryError, match="out of memory"):
        ours(model, music()[:, :22050], "cpu", 0.25)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("model", [hybrid, time_domain, bag])
def test_other_models_of_demucs(model: Callable[[], Any], device: str, record_parity: ParityRecorder) -> None:
    for seconds in (0.2, 3.0):
        mix = music()[:, : int(seconds * 44100)]
        check(record_parity, f"{model.__name__}, {seconds} s", model(), mix, device, most_segments=3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seconds", [5, pytest.param(61, marks=pytest.mark.full)])
def test_music_of_many_segments(seconds: int, device: str, record_parity: ParityRecorder) -> None:
    mix = separation.stereo_mix(read_stems("boogi_marabi"))[:, : seconds * 44100]
    check(record_parity, f"boogi_marabi, {seconds} s", small(), mix, device, most_segments=4)


@pytest.mark.parametrize("device", DEVICES[1:] or [pytest.param("cpu", marks=pytest.mark.full)])
def test_the_published_shape(device: str, record_parity: ParityRecorder) -> None:
    """42 million parameters: on a CPU a segment takes seconds, so that this is a long check there."""
    check(record_parity, "published shape, 15 s", published(), music()[:, : 15 * 44100], device)


@pytest.mark.parametrize("device", DEVICES)
def test_fast_keeps_its_signal_to_noise_ratio(device: str, record_parity: ParityRecorder) -> None:
    """On CUDA on the published shape, for which the ratio is declared; on a CPU it is what ``exact`` is."""
    model, seconds = (published(), 20) if device == "cuda" else (small(), 5)
    mix = separation.stereo_mix(read_stems("boogi_marabi"))[:, : seconds * 44100]
    exact = ours(model, mix, device, 0.25)
    fast = ours(model, mix, device, 0.25, precision="fast")
    ratios = separation.signal_to_noise(fast, exact)
    record_parity(
        ParityRecord(
            stage="separation",
            case=f"boogi_marabi, {seconds} s",
            oracle="exact",
            backend="demucs-infer",
            device=device,
            precision="fast",
            bound=f">= {ROW.least_snr:g} dB",
            passed=bool(ratios.min() >= ROW.least_snr),
            measures={"least_snr_db": float(ratios.min())},
        )
    )
    assert ratios.min() >= ROW.least_snr, ratios
    if device == "cpu":
        np.testing.assert_array_equal(fast, exact)


@pytest.mark.parametrize("track", ["jaxius", "boogi_marabi"])
def test_activations_are_of_order_one_through_all_layers(track: str) -> None:
    """Else the comparisons above would say little of the layers that are not heard."""
    deviations = separation.activations(small(), separation.stereo_mix(read_stems(track))[:, 8 * 44100 :])
    assert len(deviations) > 60
    assert all(0.3 < deviation < 3 for deviation in deviations.values()), deviations


def test_every_sample_is_in_a_segment_and_batches_hold_each_once_in_order() -> None:
    for num_samples in (1, 22049, 22050, 22051, 16537, 16538, 100_000):
        for overlap in (0.0, 0.25, 0.9):
            segments = segments_of(small(), num_samples, overlap)
            covered = np.zeros(num_samples, int)
            for segment in segments:
                covered[segment.start : segment.start + segment.length] += 1
            assert covered.min() >= 1
            assert segments[-1].start + segments[-1].length == num_samples
            for most in (1, 3, 100):
                made = list(batches(segments, most))
                assert [segment for batch in made for segment in batch] == segments
                assert max(map(len, made)) <= most
                assert max(map(len, made)) - min(map(len, made)) <= 1


@pytest.mark.parametrize("model", [small, hybrid])
def test_the_lowest_bin_is_real_before_the_inverse_transform(
    model: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another one cuFFT makes a tone at half the sample rate, or not: by the number of segments."""
    module = sys.modules[type(model()).__module__]
    right, seen = module.ispectro, []

    def watched(spectrum: Any, *arguments: Any, **keywords: Any) -> Any:
        seen.append(spectrum.clone())
        return right(spectrum, *arguments, **keywords)

    monkeypatch.setattr(module, "ispectro", watched)
    ours(model(), music()[:, :22050], "cpu", 0.25)
    assert len(seen) == len(segments_of(model(), 44100 - SHIFT, 0.25))
    for spectrum in seen:
        assert not spectrum[..., 0, :].imag.any()
        assert not spectrum[..., -1, :].any()
        assert spectrum[..., 1, :].imag.any()
    model()(torch.from_numpy(music()[None, :, :22050]))
    assert seen[-1][..., 0, :].imag.any()  # as the network itself has it


def test_a_network_that_was_being_trained_is_evaluated() -> None:
    separate = OverlapAdd(copy.deepcopy(small()).train(), device="cpu", precision="exact")
    assert not any(layer.training for network in separate.networks for layer in network.modules())
