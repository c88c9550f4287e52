// A fingerprint of weights, by which a call knows whether they have changed.
#pragma once

#include "simd.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// One step of as many chains of 64 bits as a vector holds. For given words it is a bijection of each
/// chain, and for a given chain one of its words. The first product spreads each bit of a word over all
/// above it; the rotation brings the upper ones down and into the other half, and the second product
/// spreads these. So two changes cancel only where the later one undoes 64 mixed bits. Products of 32 bits:
/// not every level has those of 64.
RNNCORE_INLINE Words32 chained(Words32 chain, Words32 words) {
  constexpr uint32_t odd_word = 0x9E3779B1u, odd_chain = 0x85EBCA6Bu;
  const Words64 sum = Words64(chain + words * odd_word);
  return Words32(sum << 45 | sum >> 19) * odd_chain;
}

/// Of numbers that lie in several places. Others in their stead have the same one once in 2^64 times,
/// however they differ: signs, scales, orders, rounding, single bits.
class Fingerprint {
public:
  Fingerprint() {
    for (Index i = 0; i < count; ++i) chains_[i] = Words32{} + uint32_t(i + 1);
  }
  void add(const Bytes& block) {
    const char* from = static_cast<const char*>(block.data);
    std::size_t left = block.size;
    Words32 chains[count]; // in registers
    for (Index i = 0; i < count; ++i) chains[i] = chains_[i];
    for (; left >= count * bytes; left -= count * bytes, from += count * bytes)
      for (Index i = 0; i < count; ++i) chains[i] = chained(chains[i], words(from + i * bytes, bytes));
    for (Index i = 0; i < count; ++i) chains_[i] = chains[i];
    for (Index i = 0; left > 0; ++i, from += bytes) {
      const std::size_t some = left < bytes ? left : bytes;
      chains_[i] = chained(chains_[i], words(from, some));
      left -= some;
    }
  }
  uint64_t value() const {
    Words32 all = chains_[0];
    for (Index i = 1; i < count; ++i) all = chained(all, chains_[i]);
    const Words64 ends = Words64(all);
    uint64_t value = 0;
    for (std::size_t i = 0; i < bytes / sizeof value; ++i) {
      value = (value ^ ends[i]) * 0x9E3779B97F4A7C15u;
      value ^= value >> 32;
    }
    return value;
  }

private:
  static constexpr Index count = 8;
  static constexpr std::size_t bytes = sizeof(Words32);

  static RNNCORE_INLINE Words32 words(const char* from, std::size_t size) {
    Words32 words{};
    std::memcpy(&words, from, size);
    return words;
  }

  Words32 chains_[count];
};

} // namespace rnncore::RNNCORE_LEVEL
