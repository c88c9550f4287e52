// The table of one instruction set.
#include "../api.hpp"

namespace rnncore::RNNCORE_LEVEL {

extern const Kernels<float> float32;
extern const Kernels<double> float64;

namespace {

/// Independent chains of xor and odd multiplication: each step is a bijection, so changing one number of
/// a chain always changes the result.
uint64_t fingerprint(const void* data, std::size_t bytes, uint64_t seed) {
  constexpr std::size_t chains = 64;
  uint32_t chain[chains];
  for (std::size_t i = 0; i < chains; ++i) chain[i] = uint32_t(seed >> (i % 2 * 32)) + uint32_t(i);
  const char* from = static_cast<const char*>(data);
  const std::size_t words = bytes / sizeof(uint32_t);
  std::size_t w = 0;
  for (; w + chains <= words; w += chains)
    for (std::size_t i = 0; i < chains; ++i) {
      uint32_t word;
      __builtin_memcpy(&word, from + (w + i) * sizeof word, sizeof word);
      chain[i] = (chain[i] ^ word) * 0x9E3779B1u;
    }
  for (; w < words; ++w) {
    uint32_t word;
    __builtin_memcpy(&word, from + w * sizeof word, sizeof word);
    chain[w % chains] = (chain[w % chains] ^ word) * 0x9E3779B1u;
  }
  uint64_t sum = seed;
  for (std::size_t i = 0; i < chains; ++i) {
    sum = (sum ^ chain[i]) * 0x9E3779B97F4A7C15u;
    sum ^= sum >> 29;
  }
  return sum;
}

} // namespace

#define RNNCORE_TEXT_(x) #x
#define RNNCORE_TEXT(x) RNNCORE_TEXT_(x)

extern const Table table;
const Table table = {RNNCORE_TEXT(RNNCORE_LEVEL), &float32, &float64, fingerprint};

} // namespace rnncore::RNNCORE_LEVEL
