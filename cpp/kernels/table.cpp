// The table of one instruction set.
#include "level.hpp"

#include "simd.hpp"

namespace rnncore::RNNCORE_LEVEL {

extern const Kernels<float> float32;
extern const Kernels<double> float64;
extern const Attention<float> attention32;
extern const Attention<double> attention64;

namespace {

static_assert(!vector_bytes || sizeof(Vec<float>) == vector_bytes,
              "Eigen does not use this level's vectors");

/// Independent chains of xor and odd multiplication: each step is a bijection, so a chain ends elsewhere
/// when one of its numbers has changed, and so do the sums of all chains, each times an odd number.
uint64_t fingerprint(const Bytes* blocks, Index count) {
  constexpr std::size_t chains = 64;
  uint32_t chain[chains];
  for (std::size_t i = 0; i < chains; ++i) chain[i] = uint32_t(i);
  const auto add = [&](const char* from, std::size_t words) {
    for (std::size_t i = 0; i < words; ++i) {
      uint32_t word;
      __builtin_memcpy(&word, from + i * sizeof word, sizeof word);
      chain[i] = (chain[i] ^ word) * 0x9E3779B1u;
    }
  };
  for (const Bytes* block = blocks; block < blocks + count; ++block) {
    const char* from = static_cast<const char*>(block->data);
    std::size_t words = block->size / sizeof(uint32_t);
    for (; words >= chains; words -= chains, from += chains * sizeof(uint32_t)) add(from, chains);
    add(from, words);
  }
  uint32_t low = 0, high = 0;
  for (std::size_t i = 0; i < chains; ++i) {
    low += chain[i] * uint32_t(2 * i + 1);
    high += (chain[i] ^ chain[i] >> 16) * (0x85EBCA6Bu + uint32_t(2 * i));
  }
  return uint64_t(high) << 32 | low;
}

} // namespace

extern const Table table;
const Table table = {level,    macros,       sizeof(Vec<float>), &float32,
                     &float64, &attention32, &attention64,       fingerprint};

} // namespace rnncore::RNNCORE_LEVEL
