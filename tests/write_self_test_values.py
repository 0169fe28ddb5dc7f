"""Write the values that the doctor's self-test is held to: ``python -m tests.write_self_test_values``.

They come from the reference implementations (numpy, torch), on whatever machine this runs: last bits of spectrogram and
network depend on its processor. The test suites hold them to madmom's within `SPECTROGRAM_BOUND`, on every machine.
"""

from pathlib import Path

import numpy as np

from allin1_core import self_test

PATH = Path(self_test.__file__).parent / "data" / "self_test.npz"


def main() -> None:
    values = {"spectrogram": self_test.spectrogram("numpy"), "decoder": self_test.beats("numpy")}
    np.savez_compressed(PATH, **values, network=np.empty(0))
    values["network"] = self_test.network("torch", "cpu")
    np.savez_compressed(PATH, **values)


if __name__ == "__main__":
    main()
