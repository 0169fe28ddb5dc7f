# cython: language_level=3
cdef extern from *:
    """
    #include <stdint.h>
    #include "../dispatch.h"
    ALLIN1_INLINE double one(double x) { return x + 1; }
    ALLIN1_MULTIVERSION static void add(double *x, int n) { for (int i = 0; i < n; i++) x[i] = one(x[i]); }
    """
    const char *allin1_instruction_set()
    void add(double *x, int n) noexcept nogil

def instruction_set():
    return allin1_instruction_set().decode()
def addd(double[::1] x):
    add(&x[0], x.shape[0])
