// Whether this processor runs what was compiled for a level.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>

#include <initializer_list>

#include "compiler.hpp"
#endif

namespace rnncore {

inline bool runs_generic() { return true; }
inline bool runs_native() { return true; } // it was compiled here

#if defined(__x86_64__)
// From CPUID itself: the compilers' own question needs a library of theirs that not all of them link.

/// Of the leaves that tell of instructions those registers that matter here; zeros where a leaf is missing.
struct ProcessorBits {
  unsigned leaf_1 = 0, leaf_7_b = 0, leaf_7_c = 0, leaf_7_1_a = 0, extended_c = 0, saved = 0;

  ProcessorBits() {
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d)) leaf_1 = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
      const unsigned subleaves = a;
      leaf_7_b = b;
      leaf_7_c = c;
      if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) leaf_7_1_a = a;
    }
    if (__get_cpuid(0x80000001, &a, &b, &c, &d)) extended_c = c;
    if (all(leaf_1, {27})) RNNCORE_ASM("xgetbv" : "=a"(saved) : "c"(0) : "edx");
  }

  /// Whether a register has all of these bits.
  static constexpr bool all(unsigned bits, std::initializer_list<int> wanted) {
    for (const int bit : wanted)
      if (!(bits >> bit & 1)) return false;
    return true;
  }
};

inline bool runs_v2() {
  return ProcessorBits::all(ProcessorBits().leaf_1, {9, 19, 20, 23}); // SSSE3, SSE4.1, SSE4.2, POPCNT
}
inline bool runs_v3() {
  const ProcessorBits p;
  return runs_v2() && p.all(p.leaf_1, {12, 22, 28, 29}) && // FMA, MOVBE, AVX, F16C
         p.all(p.leaf_7_b, {3, 5, 8}) &&                   // BMI, AVX2, BMI2
         p.all(p.extended_c, {5}) &&                       // LZCNT
         p.all(p.saved, {1, 2});                           // by the system: SSE's and AVX's registers
}
inline bool runs_v4() {
  const ProcessorBits p;
#if defined(__APPLE__)
  constexpr bool saved = true; // macOS begins to at the first use
#else
  const bool saved = p.all(p.saved, {5, 6, 7}); // masks, upper halves, the other sixteen registers
#endif
  return runs_v3() && saved && p.all(p.leaf_7_b, {16, 17, 28, 30, 31}); // F, DQ, CD, BW, VL
}
inline bool runs_v4_vnni() { return runs_v4() && ProcessorBits::all(ProcessorBits().leaf_7_c, {11}); }
inline bool runs_v4_bf16() { return runs_v4_vnni() && ProcessorBits::all(ProcessorBits().leaf_7_1_a, {5}); }
#endif

} // namespace rnncore
