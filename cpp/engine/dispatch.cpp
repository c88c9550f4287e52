#include "dispatch.hpp"

#include <cstdlib>
#include <stdexcept>

#include "processor.hpp"

#define RNNCORE_DECLARE(level)                                                                             \
  namespace rnncore::level {                                                                               \
  extern const KernelTable table;                                                                          \
  }
RNNCORE_DECLARE(v2)
RNNCORE_DECLARE(v3)
RNNCORE_DECLARE(v4)
namespace rnncore::v4 {
extern const KernelTable table_vnni, table_bf16;
}
RNNCORE_DECLARE(native)
RNNCORE_DECLARE(generic)

namespace rnncore {
namespace {

struct Candidate {
  const KernelTable* table;
  bool (*runs)();
};

/// Lowest first.
const Candidate candidates[] = {
#if defined(RNNCORE_HAS_generic)
    {&generic::table, runs_generic},
#endif
#if defined(RNNCORE_HAS_v2)
    {&v2::table, runs_v2},
#endif
#if defined(RNNCORE_HAS_v3)
    {&v3::table, runs_v3},
#endif
#if defined(RNNCORE_HAS_v4)
    {&v4::table, runs_v4},           {&v4::table_vnni, runs_v4_vnni}, {&v4::table_bf16, runs_v4_bf16},
#endif
#if defined(RNNCORE_HAS_native)
    {&native::table, runs_native},
#endif
};

const KernelTable& choose() {
  const char* forced = std::getenv("RNNCORE_ISA");
  const bool any = !forced || !*forced;
  const KernelTable* best = nullptr;
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

const KernelTable& kernels() {
  static const KernelTable& best = choose();
  return best;
}

std::vector<std::string> levels() {
  std::vector<std::string> names;
  for (const Candidate& c : candidates) names.push_back(c.table->level);
  return names;
}

template <>
const Kernels<double>& kernels_of<double>(const std::string& weights) {
  if (weights.empty() || weights == "float64") return kernels_of<double>();
  throw std::invalid_argument("no kernels compute in float64 with weights in " + weights);
}

template <>
const Kernels<float>& kernels_of<float>(const std::string& weights) {
  if (weights.empty() || weights == "float32") return kernels_of<float>();
  if (weights == "bfloat16") return *kernels().bfloat16;
  if (weights == "bfloat16_dot") return *kernels().bfloat16_dot;
  if (weights == "int8") return *kernels().int8;
  throw std::invalid_argument("no kernels compute in float32 with weights in " + weights);
}

} // namespace rnncore
