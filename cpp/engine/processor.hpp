// Whether this processor runs what was compiled for a level.
#pragma once

namespace rnncore {

inline bool runs_generic() { return true; }
inline bool runs_native() { return true; } // it was compiled here

#if defined(__x86_64__)
inline bool runs_v2() {
  return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("ssse3") &&
         __builtin_cpu_supports("popcnt");
}
inline bool runs_v3() {
  return runs_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
inline bool runs_v4() {
  return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
inline bool runs_v4_vnni() { return runs_v4() && __builtin_cpu_supports("avx512vnni"); }
inline bool runs_v4_bf16() { return runs_v4_vnni() && __builtin_cpu_supports("avx512bf16"); }
#endif

} // namespace rnncore
