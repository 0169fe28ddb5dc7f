/* Includes the header that KERNELS names once for each instruction set a machine may have, with ISA (the suffix of its
 * names) and VECTOR_BYTES (the length of its registers) defined. Included after dispatch.h, whose
 * `allin1_instruction_set` says which version to call. There is no include guard: that is its purpose. */
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define ALLIN1_SEVERAL_SETS 1

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("arch=x86-64-v4"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
#endif
#define ISA avx512
#define VECTOR_BYTES 64
#include KERNELS
#undef ISA
#undef VECTOR_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("arch=x86-64-v3"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#endif
#define ISA avx2
#define VECTOR_BYTES 32
#include KERNELS
#undef ISA
#undef VECTOR_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* The baseline: 16 bytes are NEON on Arm and SSE2 on x86. */
#define ISA baseline
#define VECTOR_BYTES 16
#include KERNELS
#undef ISA
#undef VECTOR_BYTES
