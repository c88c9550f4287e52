// The table of one instruction set.
#include "simd.hpp"

#define RNNCORE_TEXT_(x) #x
#define RNNCORE_TEXT(x) RNNCORE_TEXT_(x)

namespace rnncore::RNNCORE_LEVEL {

extern const Kernels<float> float32;
extern const Kernels<double> float64;

namespace {

constexpr char level[] = RNNCORE_TEXT(RNNCORE_LEVEL);

// What the compiler was told to use, whatever the level is called, and the vectors that belong to it.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
constexpr char macros[] = "v4";
constexpr Index vector_bytes = 64;
#elif defined(__AVX2__) && defined(__FMA__) && defined(__BMI2__)
constexpr char macros[] = "v3";
constexpr Index vector_bytes = 32;
#elif defined(__SSE4_2__) && defined(__POPCNT__)
constexpr char macros[] = "v2";
constexpr Index vector_bytes = 16;
#else
constexpr char macros[] = "generic";
constexpr Index vector_bytes = sizeof(Vec<float>);
#endif

constexpr bool same(const char* a, const char* b) { return *a == *b && (!*a || same(a + 1, b + 1)); }

static_assert(same(level, macros) || same(level, "native"), "compiled without the flags of its level");
static_assert(sizeof(Vec<float>) == vector_bytes, "Eigen does not use the vectors of this level");

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
const Table table = {level, macros, vector_bytes, &float32, &float64, fingerprint};

} // namespace rnncore::RNNCORE_LEVEL
