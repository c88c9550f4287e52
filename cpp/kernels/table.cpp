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

constexpr uint64_t odd_word = 0x9E3779B97F4A7C15u, odd_state = 0xD6E8FEB86659FD93u;

constexpr uint64_t rotated(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

/// One step of a chain: for a given word a bijection of the state, and for a given state one of the word.
/// The first product spreads each bit of a word over all above it; the rotation brings the upper ones down,
/// and the second product spreads these. So two changes cancel only where the later one undoes 64 mixed
/// bits.
constexpr uint64_t mixed(uint64_t state, uint64_t word) {
  return rotated(state + word * odd_word, 29) * odd_state;
}

/// Independent chains over 64-bit words, as many as keep the processor's multipliers busy; then one chain
/// over their ends. Different blocks of numbers of the same sizes have the same fingerprint once in 2^64
/// times, however they differ: signs, scales, orders, rounding, single bits.
uint64_t fingerprint(const Bytes* blocks, Index count) {
  constexpr std::size_t chains = 32;
  uint64_t chain[chains];
  for (std::size_t i = 0; i < chains; ++i) chain[i] = i * odd_state;
  const auto add = [&](const char* from, std::size_t words) {
    for (std::size_t i = 0; i < words; ++i) {
      uint64_t word;
      __builtin_memcpy(&word, from + i * sizeof word, sizeof word);
      chain[i] = mixed(chain[i], word);
    }
  };
  for (const Bytes* block = blocks; block < blocks + count; ++block) {
    const char* from = static_cast<const char*>(block->data);
    std::size_t words = block->size / sizeof(uint64_t);
    for (; words >= chains; words -= chains, from += chains * sizeof(uint64_t)) add(from, chains);
    add(from, words);
    uint64_t rest = 0; // of an odd number of float32
    __builtin_memcpy(&rest, from + words * sizeof rest, block->size % sizeof rest);
    chain[0] = mixed(chain[0], rest);
  }
  uint64_t all = 0;
  for (std::size_t i = 0; i < chains; ++i) all = mixed(all, chain[i] ^ chain[i] >> 32);
  return all ^ all >> 32;
}

} // namespace

extern const Table table;
const Table table = {level,    macros,       sizeof(Vec<float>), &float32,
                     &float64, &attention32, &attention64,       fingerprint};

} // namespace rnncore::RNNCORE_LEVEL
