/* The kernels in the header that KERNELS names, compiled once for each instruction set, each in a namespace of its own.
 *
 * Included after dispatch.h and after `kernels_t`, the entry points of such a header, which it defines as `kernels`.
 * The inner namespaces are anonymous, so that no function has a symbol that the linker could take for another set's.
 * For the same reason no header is included within, but vectors.h, and kernels call no inline function of the standard
 * library: its one copy could be one that was compiled for AVX-512. There is no include guard: that is its purpose. */
#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define BEGIN_TARGET(features) \
    PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET PRAGMA(clang attribute pop)
#else
#define BEGIN_TARGET(features) PRAGMA(GCC push_options) PRAGMA(GCC target(features))
#define END_TARGET PRAGMA(GCC pop_options)
#endif

#if defined(ALLIN1_SEVERAL_SETS)
BEGIN_TARGET(ALLIN1_LEVEL4)
namespace avx512 { namespace {
constexpr int VECTOR_BYTES = 64;
#include "vectors.h"
#include KERNELS
} }
END_TARGET

BEGIN_TARGET(ALLIN1_LEVEL3)
namespace avx2 { namespace {
constexpr int VECTOR_BYTES = 32;
#include "vectors.h"
#include KERNELS
} }
END_TARGET
#endif

/* 16 bytes are NEON on Arm and SSE2 on x86. */
namespace baseline { namespace {
constexpr int VECTOR_BYTES = 16;
#include "vectors.h"
#include KERNELS
} }

/* The kernels of an instruction set by name, which this processor must be able to run. */
static inline const kernels_t *kernels_for(const char *name) {
#if defined(ALLIN1_SEVERAL_SETS)
    if (strcmp(name, "AVX-512") == 0) return &avx512::kernels;
    if (strcmp(name, "AVX2") == 0) return &avx2::kernels;
#endif
    (void)name;
    return &baseline::kernels;
}
