// What compilers have beyond the language, each under one name: here, and for vectors in kernels/simd.hpp.
// GCC knows all of it, and so does Clang, for Windows as well. Macros alone: what api.hpp says of shared
// functions holds here too.
#pragma once

#define RNNCORE_HOT __attribute__((always_inline)) // for lambdas
#define RNNCORE_INLINE inline RNNCORE_HOT
#define RNNCORE_NOINLINE __attribute__((noinline))

/// Before a loop: that many rounds in a row. Sums of a tile stay in registers only if their indices are
/// known.
#define RNNCORE_UNROLL(rounds) RNNCORE_PRAGMA_(GCC unroll rounds)
#define RNNCORE_PRAGMA_(text) _Pragma(#text)

/// Shown to other libraries of the process.
#if defined(_WIN32)
#define RNNCORE_EXPORT __declspec(dllexport)
#else
#define RNNCORE_EXPORT __attribute__((visibility("default")))
#endif

/// One instruction, written out.
#define RNNCORE_ASM __asm__
