#include "dispatch.hpp"

#include <cstdlib>
#include <stdexcept>

#define RNNCORE_DECLARE(level)                                                                             \
  namespace rnncore::level {                                                                               \
  extern const Table table;                                                                                \
  }
RNNCORE_DECLARE(v2)
RNNCORE_DECLARE(v3)
RNNCORE_DECLARE(v4)
RNNCORE_DECLARE(native)
RNNCORE_DECLARE(generic)

namespace rnncore {
namespace {

#if defined(__x86_64__)
[[maybe_unused]] bool runs_v2() {
  return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("ssse3") &&
         __builtin_cpu_supports("popcnt");
}
[[maybe_unused]] bool runs_v3() {
  return runs_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
[[maybe_unused]] bool runs_v4() {
  return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif
[[maybe_unused]] bool runs_anywhere() { return true; }

struct Candidate {
  const Table* table;
  bool (*runs)();
};

/// Lowest first.
const Candidate candidates[] = {
#if defined(RNNCORE_HAS_generic)
    {&generic::table, runs_anywhere},
#endif
#if defined(RNNCORE_HAS_v2)
    {&v2::table, runs_v2},
#endif
#if defined(RNNCORE_HAS_v3)
    {&v3::table, runs_v3},
#endif
#if defined(RNNCORE_HAS_v4)
    {&v4::table, runs_v4},
#endif
#if defined(RNNCORE_HAS_native)
    {&native::table, runs_anywhere},
#endif
};

const Table& choose() {
  const char* forced = std::getenv("RNNCORE_ISA");
  const bool any = !forced || !*forced;
  const Table* best = nullptr;
  std::string names;
  for (const Candidate& c : candidates) {
    const bool named = !any && std::string(forced) == c.table->level;
    if (named && !c.runs())
      throw std::runtime_error(std::string("RNNCORE_ISA=") + forced +
                               ": this processor does not have that instruction set");
    if (named || (any && c.runs())) best = c.table;
    names += std::string(names.empty() ? "" : ", ") + c.table->level;
  }
  if (best) return *best;
  throw std::runtime_error(any ? "rnncore was built for " + names + "; this processor runs none of them"
                               : std::string("RNNCORE_ISA=") + forced + " is not one of " + names);
}

} // namespace

const Table& kernels() {
  static const Table& chosen = choose();
  return chosen;
}

std::vector<std::string> levels() {
  std::vector<std::string> names;
  for (const Candidate& c : candidates) names.push_back(c.table->level);
  return names;
}

} // namespace rnncore
