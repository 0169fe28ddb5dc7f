/* One binary, the best instructions of the machine it runs on.
 *
 * Kernels are compiled once for each instruction set (instruction_sets.h, viterbi_kernel.h), and called by the name of
 * one. What a kernel calls must be marked ALLIN1_INLINE, so that it is compiled for the same instruction set. */
#ifndef ALLIN1_DISPATCH_H
#define ALLIN1_DISPATCH_H

#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define ALLIN1_INLINE static inline __attribute__((always_inline))
#else
#define ALLIN1_INLINE static inline
#endif

/* Name of the best instruction set of this processor that kernels are compiled for. */
ALLIN1_INLINE const char *allin1_instruction_set(void) {
#if defined(__x86_64__) && defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return "AVX-512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        return "AVX2";
    return "baseline x86-64";
#elif defined(__aarch64__) || defined(_M_ARM64)
    return "NEON";
#else
    return "baseline";
#endif
}

/* Whether kernels of that name are compiled and this processor can run them: those of its best set and of lesser ones.
 * Called by another name, a kernel would be absent, or end the process at its first instruction. */
ALLIN1_INLINE int allin1_has_instruction_set(const char *name) {
    static const char *const descending[] = {"AVX-512", "AVX2", "baseline x86-64"};
    const char *best = allin1_instruction_set();
    int reached = 0;
    for (int i = 0; i < 3; i++) {
        reached |= strcmp(descending[i], best) == 0;
        if (strcmp(descending[i], name) == 0) return reached;
    }
    return strcmp(name, best) == 0; /* not x86: there is one */
}

#endif
