# cython: language_level=3
"""What this processor can run, as dispatch.h asks it."""

from libc.stdint cimport uint32_t


cdef extern from "dispatch.h":
    ctypedef struct allin1_features_t:
        uint32_t leaf1_ecx
        uint32_t leaf7_ebx
        uint32_t extended1_ecx
        uint32_t xcr0

    allin1_features_t allin1_features()
    const char *allin1_best_set(allin1_features_t)


def features():
    """The words of cpuid and XCR0 that the choice of an instruction set goes by, by name; all 0 on another than x86."""
    return allin1_features()


def best_instruction_set(allin1_features_t features):
    """Name of the best instruction set that kernels are compiled for and a processor with these features can run."""
    return allin1_best_set(features).decode()
