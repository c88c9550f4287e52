// Fingerprints against the same written word by word, and all that must change them.
#include "kernels/fingerprint.hpp"

#include <cstring>
#include <utility>
#include <vector>

#include "check.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

using Words = std::vector<uint32_t>;

uint64_t fingerprint(const std::vector<Words>& blocks) {
  Fingerprint all;
  for (const Words& block : blocks) all.add({block.data(), block.size() * sizeof(uint32_t)});
  return all.value();
}

/// One step of a chain: two words into its 64 bits.
void chain_on(uint32_t* chain, const uint32_t* words) {
  const uint32_t low = chain[0] + words[0] * 0x9E3779B1u, high = chain[1] + words[1] * 0x9E3779B1u;
  const uint64_t sum = low | uint64_t(high) << 32, turned = sum << 45 | sum >> 19;
  chain[0] = uint32_t(turned) * 0x85EBCA6Bu;
  chain[1] = uint32_t(turned >> 32) * 0x85EBCA6Bu;
}

uint64_t word_by_word(const std::vector<Words>& blocks) {
  constexpr std::size_t wide = sizeof(Words32) / sizeof(uint32_t), chains = 8;
  uint32_t chain[chains][wide];
  for (std::size_t i = 0; i < chains; ++i)
    for (std::size_t j = 0; j < wide; ++j) chain[i][j] = uint32_t(i + 1);
  for (const Words& block : blocks)
    for (std::size_t at = 0; at < block.size(); at += wide) { // each of the chains has a vector in turn
      uint32_t words[wide] = {};
      for (std::size_t j = 0; j < wide && at + j < block.size(); ++j) words[j] = block[at + j];
      for (std::size_t j = 0; j < wide; j += 2) chain_on(chain[at / wide % chains] + j, words + j);
    }
  for (std::size_t i = 1; i < chains; ++i)
    for (std::size_t j = 0; j < wide; j += 2) chain_on(chain[0] + j, chain[i] + j);
  uint64_t value = 0;
  for (std::size_t j = 0; j < wide; j += 2) {
    value = (value ^ (chain[0][j] | uint64_t(chain[0][j + 1]) << 32)) * 0x9E3779B97F4A7C15u;
    value ^= value >> 32;
  }
  return value;
}

Words drawn(std::size_t n, uint32_t seed) {
  Words words(n);
  for (uint32_t& word : words) word = seed = seed * 1664525u + 1013904223u;
  return words;
}

/// Every bit, every two words in each other's place, every number's sign, and doubled.
void changes(const Words& words) {
  const uint64_t before = fingerprint({words});
  for (std::size_t i = 0; i < words.size(); ++i) {
    for (int bit = 0; bit < 32; ++bit) {
      Words other = words;
      other[i] ^= 1u << bit;
      CHECK(fingerprint({other}) != before, "bit %d of word %zu of %zu", bit, i, words.size());
    }
    for (std::size_t j = 0; j < i; ++j) {
      Words other = words;
      std::swap(other[i], other[j]);
      CHECK(other == words || fingerprint({other}) != before, "words %zu and %zu of %zu", i, j,
            words.size());
      other = words;
      other[i] ^= 1u << 31;
      other[j] ^= 1u << 31;
      CHECK(fingerprint({other}) != before, "signs %zu and %zu of %zu", i, j, words.size());
    }
  }
  Words signs = words, doubled = words;
  for (uint32_t& word : signs) word ^= 1u << 31;
  for (uint32_t& word : doubled) word += 1u << 23;
  CHECK(words.empty() || fingerprint({signs}) != before, "all signs of %zu", words.size());
  CHECK(words.empty() || fingerprint({doubled}) != before, "all of %zu doubled", words.size());
}

} // namespace

void test_fingerprint() {
  constexpr std::size_t wide = sizeof(Words32) / sizeof(uint32_t);
  for (const std::size_t n :
       {std::size_t(0), std::size_t(1), wide - 1, wide, wide + 1, 8 * wide, 8 * wide + 1, 17 * wide + 3}) {
    const Words words = drawn(n, 1);
    CHECK(fingerprint({words}) == word_by_word({words}), "%zu words", n);
    CHECK(fingerprint({words, drawn(5, 2), {}}) == word_by_word({words, drawn(5, 2), {}}), "%zu and 5", n);
    // Where the words lie does not matter, nor how.
    std::vector<char> elsewhere(n * sizeof(uint32_t) + 1);
    if (n) std::memcpy(elsewhere.data() + 1, words.data(), n * sizeof(uint32_t));
    Fingerprint moved;
    moved.add({elsewhere.data() + 1, n * sizeof(uint32_t)});
    CHECK(moved.value() == fingerprint({words}), "%zu words at an odd place", n);
  }
  for (const std::size_t n : {std::size_t(0), std::size_t(1), wide + 1, 9 * wide + 3}) {
    changes(drawn(n, 3));
    changes(Words(n, 0x3F800000u)); // ones
  }
}

} // namespace rnncore::RNNCORE_LEVEL
