/* One binary, the best instructions of the machine it runs on: what kernels are compiled for, and what a processor has.
 *
 * targets.h compiles kernels once for each instruction set; they are called by the name of one. */
#ifndef ALLIN1_DISPATCH_H
#define ALLIN1_DISPATCH_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Of whatever a kernel calls, so that its vectors never cross a function boundary. */
#define ALLIN1_INLINE inline __attribute__((always_inline))

/* What the processor says of itself; on another than x86, nothing. */
struct allin1_features_t {
    uint32_t leaf1_ecx, leaf7_ebx, extended1_ecx; /* cpuid, leaves 1, 7 and 0x80000001 */
    uint32_t xcr0;                                /* registers that the operating system saves */
};

#if defined(__x86_64__)
#define ALLIN1_SEVERAL_SETS 1

#include <cpuid.h>

/* Levels 3 and 4 of the x86-64 psABI, whose names GCC knows from version 11 on. What kernels are compiled for here is
 * what `allin1_best_set` asks for, beside registers that the system saves: SSE (bit 1 of XCR0) and AVX (2), for
 * AVX-512 also masks (5) and the registers' upper halves (6) and second half (7). On macOS the last three show only
 * after a thread has used them, so that AVX2 is the best there. */
#define ALLIN1_LEVEL3 "sse3,ssse3,sse4.1,sse4.2,popcnt,cx16,sahf,avx,avx2,bmi,bmi2,f16c,fma,lzcnt,movbe"
#define ALLIN1_LEVEL4 ALLIN1_LEVEL3 ",avx512f,avx512bw,avx512cd,avx512dq,avx512vl"

static inline int allin1_has_level3(allin1_features_t features) {
    const uint32_t leaf1_ecx = bit_SSE3 | bit_SSSE3 | bit_SSE4_1 | bit_SSE4_2 | bit_POPCNT | bit_CMPXCHG16B | bit_AVX |
                               bit_F16C | bit_FMA | bit_MOVBE | bit_OSXSAVE;
    const uint32_t leaf7_ebx = bit_AVX2 | bit_BMI | bit_BMI2, extended1_ecx = bit_LAHF_LM | bit_LZCNT, xcr0 = 0x06;
    return (features.leaf1_ecx & leaf1_ecx) == leaf1_ecx && (features.leaf7_ebx & leaf7_ebx) == leaf7_ebx &&
           (features.extended1_ecx & extended1_ecx) == extended1_ecx && (features.xcr0 & xcr0) == xcr0;
}

static inline int allin1_has_level4(allin1_features_t features) {
    const uint32_t leaf7_ebx = bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL, xcr0 = 0xE6;
    return allin1_has_level3(features) && (features.leaf7_ebx & leaf7_ebx) == leaf7_ebx &&
           (features.xcr0 & xcr0) == xcr0;
}
#endif

/* Name of the best instruction set that kernels are compiled for and a processor with these features can run. */
static inline const char *allin1_best_set(allin1_features_t features) {
#if defined(ALLIN1_SEVERAL_SETS)
    return allin1_has_level4(features) ? "AVX-512" : allin1_has_level3(features) ? "AVX2" : "baseline x86-64";
#elif defined(__aarch64__)
    (void)features;
    return "NEON";
#else
    (void)features;
    return "baseline";
#endif
}

/* The features of this processor. */
static inline allin1_features_t allin1_features(void) {
    allin1_features_t features = {0, 0, 0, 0};
#if defined(ALLIN1_SEVERAL_SETS)
    uint32_t eax, ebx, ecx, edx;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) features.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) features.leaf7_ebx = ebx;
    if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx)) features.extended1_ecx = ecx;
    /* Without OSXSAVE xgetbv is an illegal instruction. */
    if (features.leaf1_ecx & bit_OSXSAVE) __asm__("xgetbv" : "=a"(features.xcr0), "=d"(edx) : "c"(0));
#endif
    return features;
}

#endif
