// Numbers below the smallest normal one count as zero while a kernel runs: states that decay through
// them would otherwise slow every operation down a hundredfold.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#endif

#include "compiler.hpp"

namespace rnncore {

class FlushDenormals {
public:
  FlushDenormals(const FlushDenormals&) = delete;
#if defined(__SSE2__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); } // FTZ, DAZ
  ~FlushDenormals() { _mm_setcsr(saved_); }

private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    RNNCORE_ASM volatile("mrs %0, fpcr" : "=r"(saved_));
    RNNCORE_ASM volatile("msr fpcr, %0" ::"r"(saved_ | (uint64_t{1} << 24))); // FZ
  }
  ~FlushDenormals() { RNNCORE_ASM volatile("msr fpcr, %0" ::"r"(saved_)); }

private:
  uint64_t saved_;
#else
  FlushDenormals() {}
  ~FlushDenormals() {}
#endif
};

} // namespace rnncore
