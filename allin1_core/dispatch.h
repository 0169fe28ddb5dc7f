/* One binary, the best instructions of the machine it runs on.
 *
 * A kernel marked ALLIN1_MULTIVERSION is compiled once per instruction set, and the loader picks the version when
 * the extension is loaded (GNU indirect functions). Where the compiler or the platform has no such thing the mark
 * is empty: on 64-bit Arm the baseline already includes NEON. What a kernel calls must be marked ALLIN1_INLINE, so
 * that it is compiled for the same instruction set as its caller. ALLIN1_NO_MULTIVERSION leaves only the baseline:
 * sanitizers cannot start before the loader has resolved an indirect function. */
#ifndef ALLIN1_DISPATCH_H
#define ALLIN1_DISPATCH_H

#if defined(ALLIN1_NO_MULTIVERSION)
#define ALLIN1_MULTIVERSION
#elif defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && (defined(__GNUC__) || defined(__clang__))
#define ALLIN1_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ALLIN1_MULTIVERSION
#endif

#if defined(__GNUC__) || defined(__clang__)
#define ALLIN1_INLINE static inline __attribute__((always_inline))
#else
#define ALLIN1_INLINE static inline
#endif

/* Name of the version that runs here, for provenance and reports. */
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

#endif
