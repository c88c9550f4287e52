// An LSTM and a GRU one step after the other, with all sizes known to the compiler: the technique of
// RTNeural. Sums stay in registers, loops are unrolled, exp is the C library's for vectors. For
// `streams.py`, which builds it.
#include <cmath>
#include <cstddef>
#include <cstring>

namespace {

constexpr int I = SIZE, H = SIZE;

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }
float tanh_of(float x) { return 2 * sigmoid(2 * x) - 1; }

#if defined(__AVX512F__)
constexpr int L = 16;
#elif defined(__AVX__)
constexpr int L = 8;
#else
constexpr int L = 4;
#endif
typedef float Vector __attribute__((vector_size(4 * L)));
static_assert(SIZE % L == 0, "whole vectors");

/// Rows of so many numbers in vectors.
template <int N>
union Row {
  Vector vector[N / L];
  float number[N];
};

/// Weights of G gates, a row for each number of x and h, and the sums of the two products.
template <int G>
struct Gates {
  Row<G * H> w[I], u[H], b, c, x_sum, h_sum;

  /// weights (G * H, I), (G * H, H), biases (G * H)
  void load(const float* w_ih, const float* w_hh, const float* b_ih, const float* b_hh) {
    for (int g = 0; g < G * H; ++g) {
      for (int k = 0; k < I; ++k) w[k].number[g] = w_ih[g * I + k];
      for (int k = 0; k < H; ++k) u[k].number[g] = w_hh[g * H + k];
    }
    std::memcpy(&b, b_ih, sizeof b);
    std::memcpy(&c, b_hh, sizeof c);
  }
  void multiply(const float* x, const float* h) {
    Row<G * H> xs = b, hs = c;
#pragma GCC unroll 4
    for (int k = 0; k < I; ++k)
#pragma GCC unroll 64
      for (int n = 0; n < G * H / L; ++n) xs.vector[n] += x[k] * w[k].vector[n];
#pragma GCC unroll 4
    for (int k = 0; k < H; ++k)
#pragma GCC unroll 64
      for (int n = 0; n < G * H / L; ++n) hs.vector[n] += h[k] * u[k].vector[n];
    x_sum = xs;
    h_sum = hs;
  }
};

template <int G, class Cell>
void run(const float* const* weights, const float* x, float* y, std::ptrdiff_t steps, Cell cell) {
  static Gates<G> gates;
  gates.load(weights[0], weights[1], weights[2], weights[3]);
  alignas(64) float h[H] = {}, c[H] = {};
  for (std::ptrdiff_t t = 0; t < steps; ++t, x += I, y += H) {
    gates.multiply(x, h);
    for (int j = 0; j < H; ++j) cell(gates.x_sum.number + j, gates.h_sum.number + j, h[j], c[j]);
    std::memcpy(y, h, sizeof h);
  }
}

} // namespace

extern "C" {

void lstm(const float* const* weights, const float* x, float* y, std::ptrdiff_t steps) {
  run<4>(weights, x, y, steps, [](const float* a, const float* b, float& h, float& c) {
    const float i = sigmoid(a[0] + b[0]), f = sigmoid(a[H] + b[H]);
    c = f * c + i * tanh_of(a[2 * H] + b[2 * H]);
    h = sigmoid(a[3 * H] + b[3 * H]) * tanh_of(c);
  });
}

void gru(const float* const* weights, const float* x, float* y, std::ptrdiff_t steps) {
  run<3>(weights, x, y, steps, [](const float* a, const float* b, float& h, float&) {
    const float r = sigmoid(a[0] + b[0]), z = sigmoid(a[H] + b[H]);
    h = z * h + (1 - z) * tanh_of(a[2 * H] + r * b[2 * H]);
  });
}
}
