// What this processor can do at most: multiply-adds in registers, and reading from its caches.
// Built when it is needed, for the instruction set that the kernels run at.
#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__)
constexpr int width = 64;
#elif defined(__AVX__)
constexpr int width = 32;
#else
constexpr int width = 16;
#endif

namespace {

template <class T>
T multiply_add(std::ptrdiff_t rounds, T factor, T summand, double* operations) {
  typedef T Vector __attribute__((vector_size(width)));
  constexpr int chains = 12; // independent, to hide the latency
  Vector a, b, sum[chains];
  a = factor - Vector{};
  b = summand - Vector{};
  // From 2 on: a chain that starts at its fixed point, 1, would be taken out of the loop.
  for (int i = 0; i < chains; ++i) sum[i] = T(i + 2) - Vector{};
  for (std::ptrdiff_t r = 0; r < rounds; ++r)
    for (int i = 0; i < chains; ++i) sum[i] = sum[i] * a + b;
  for (int i = 1; i < chains; ++i) sum[0] += sum[i];
  *operations = 2.0 * chains * (width / sizeof(T)) * rounds;
  return sum[0][0];
}

} // namespace

extern "C" {

float multiply_add_float32(std::ptrdiff_t rounds, double* operations) {
  return multiply_add<float>(rounds, 0.99f, 0.01f, operations);
}

double multiply_add_float64(std::ptrdiff_t rounds, double* operations) {
  return multiply_add<double>(rounds, 0.99, 0.01, operations);
}

/// Reads `bytes` (a multiple of 8 vectors) again and again. Integers, as they add with the least delay.
int64_t read_bytes(const void* data, std::ptrdiff_t bytes, std::ptrdiff_t rounds) {
  typedef int64_t Vector __attribute__((vector_size(width)));
  constexpr int chains = 8;
  Vector sum[chains] = {};
  for (std::ptrdiff_t r = 0; r < rounds; ++r) {
    const Vector* p = static_cast<const Vector*>(data);
    const Vector* end = p + bytes / width;
    for (; p != end; p += chains)
      for (int i = 0; i < chains; ++i) sum[i] ^= p[i];
    __asm__ volatile("" ::: "memory"); // the next round reads again
  }
  for (int i = 1; i < chains; ++i) sum[0] ^= sum[i];
  return sum[0][0];
}
}
