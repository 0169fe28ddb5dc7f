/* Includes the header that KERNELS names once for each instruction set that kernels are compiled for, with ISA (the
 * suffix of its names) and VECTOR_BYTES (the length of its registers) defined. Included after dispatch.h. There is no
 * include guard: that is its purpose. */
#ifndef PASTE
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define BEGIN_TARGET(features) \
    PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET PRAGMA(clang attribute pop)
#else
#define BEGIN_TARGET(features) PRAGMA(GCC push_options) PRAGMA(GCC target(features))
#define END_TARGET PRAGMA(GCC pop_options)
#endif
#endif

#if defined(ALLIN1_SEVERAL_SETS)
BEGIN_TARGET(ALLIN1_LEVEL4)
#define ISA avx512
#define VECTOR_BYTES 64
#include KERNELS
#undef ISA
#undef VECTOR_BYTES
END_TARGET

BEGIN_TARGET(ALLIN1_LEVEL3)
#define ISA avx2
#define VECTOR_BYTES 32
#include KERNELS
#undef ISA
#undef VECTOR_BYTES
END_TARGET
#endif

/* The baseline: 16 bytes are NEON on Arm and SSE2 on x86. */
#define ISA baseline
#define VECTOR_BYTES 16
#include KERNELS
#undef ISA
#undef VECTOR_BYTES
