// Linear-chain CRFs: their scores as the kernels read them, and products with these.
//
// All in float64. Rows of numbers of tags are padded to whole vectors; what is beyond the last tag is
// impossible.
#pragma once

#include <cmath>
#include <limits>

#include "../engine/alignment.hpp"
#include "layout.hpp"

namespace rnncore::RNNCORE_LEVEL {

constexpr double impossible = -std::numeric_limits<double>::infinity();
constexpr double largest_double = std::numeric_limits<double>::max();

/// Unlike `larger`, they may pass over NaN.
RNNCORE_INLINE Vec<double> upper(Vec<double> a, Vec<double> b) { return Eigen::internal::pmax(a.p, b.p); }
RNNCORE_INLINE Vec<double> lower(Vec<double> a, Vec<double> b) { return Eigen::internal::pmin(a.p, b.p); }
RNNCORE_INLINE double largest_of(Vec<double> v) { return Eigen::internal::predux_max(v.p); }
RNNCORE_INLINE double smallest_of(Vec<double> v) { return Eigen::internal::predux_min(v.p); }

/// Numbers of a row for so many tags: whole vectors of any width.
constexpr Index crf_width(Index tags) { return (tags + 7) / 8 * 8; }

/// The scores of a CRF, and their exponentials relative to the largest of their kind.
struct CrfTable {
  Index tags, width;
  bool finite; // neither NaN nor +inf
  bool narrow; // exponentials are far from the smallest number, unless they stand for what is impossible
  double top, top_start, top_end;
  double *to, *from, *start, *end; // transitions (K, width): from each tag, and to each
  double *exp_to, *exp_from, *exp_start, *exp_end;
};

inline Index crf_prepared(Index tags) {
  return Index((sizeof(CrfTable) + 63) / 64 * 64) +
         (4 * tags + 4) * crf_width(tags) * Index(sizeof(double));
}

/// 1 for NaN and +inf, else 0.
RNNCORE_INLINE Vec<double> is_bad(Vec<double> v) {
  return select_le(v, Vec<double>(largest_double), Vec<double>(0.), Vec<double>(1.));
}

/// What numbers have been seen.
struct CrfRange {
  Vec<double> high{impossible}, least{largest_double}, bad{0.};

  RNNCORE_INLINE void see(Vec<double> v) {
    bad = bad + is_bad(v);
    high = upper(high, v);
    least = lower(least, select_le(Vec<double>(-largest_double), v, v, Vec<double>(largest_double)));
  }

  RNNCORE_INLINE double top() const { return largest_of(high); }
  RNNCORE_INLINE double low() const { return smallest_of(least); } // of what is possible
  RNNCORE_INLINE bool finite() const { return sum_of(bad) == 0; }  // neither NaN nor +inf
};

/// exp(row - top), zero where that is below 1e-307.
inline void crf_exp(const double* row, Index n, double top, double* to) {
  for (Index j = 0; j < n; j += lanes<double>) store(to + j, exp_below(load(row + j) - Vec<double>(top)));
}

/// Emissions of a step, or scores of as many transitions as need be for that, may differ by so much (in
/// nats) that no sum below `least` can come of one above it in a step, nor zero of one above `least`.
constexpr double most_emissions = 150, most_transitions = 100, least_sum = 1e-190;

template <class T>
void crf_prepare(const CrfScores<T>& s, void* memory) {
  const Index K = s.tags, W = crf_width(K);
  CrfTable& t = *static_cast<CrfTable*>(memory);
  double* at = reinterpret_cast<double*>(static_cast<char*>(memory) + crf_prepared(K)) - (4 * K + 4) * W;
  const auto rows = [&](Index n) {
    double* const own = at;
    at += n * W;
    return own;
  };
  t = {K, W, true, true, 0, 0, 0, rows(K), rows(K), rows(1), rows(1), rows(K), rows(K), rows(1), rows(1)};
  for (Index i = 0; i < (2 * K + 2) * W; ++i) t.to[i] = impossible;
  for (Index i = 0; i < K + 2; ++i) {
    const T* from = i < K ? s.transitions + i * K : i == K ? s.start : s.end;
    double* row = i < K ? t.to + i * W : i == K ? t.start : t.end;
    for (Index j = 0; j < K; ++j) {
      row[j] = !s.allowed || s.allowed[i * K + j] ? double(from[j]) : impossible;
      if (i < K) t.from[j * W + i] = row[j];
    }
  }
  const auto exponentials = [&](const double* of, Index n, double& top, double* to) {
    CrfRange range;
    for (Index j = 0; j < n; j += lanes<double>) range.see(load(of + j));
    top = range.top() > impossible ? range.top() : 0;
    t.finite = t.finite && range.finite();
    t.narrow = t.narrow && (range.top() == impossible || range.top() - range.low() <= most_transitions);
    crf_exp(of, n, top, to);
  };
  exponentials(t.to, K * W, t.top, t.exp_to);
  exponentials(t.from, K * W, t.top, t.exp_from);
  exponentials(t.start, W, t.top_start, t.exp_start);
  exponentials(t.end, W, t.top_end, t.exp_end);
}

/// Sums of products.
struct SumOfProducts {
  static constexpr double none = 0;
  static RNNCORE_INLINE Vec<double> add(Vec<double> sum, Vec<double> a, Vec<double> b) {
    return fma(a, b, sum);
  }
  static RNNCORE_INLINE Vec<double> join(Vec<double> a, Vec<double> b) { return a + b; }
};

/// The largest of sums.
struct LargestSum {
  static constexpr double none = impossible;
  static RNNCORE_INLINE Vec<double> add(Vec<double> best, Vec<double> a, Vec<double> b) {
    return upper(best, a + b);
  }
  static RNNCORE_INLINE Vec<double> join(Vec<double> a, Vec<double> b) { return upper(a, b); }
};

/// N vectors of a row times a matrix, in as many strands as hide the time that one takes.
template <class Ring, int N, class F>
void crf_product_tile(const double* a, Index n, const double* rows, Index width, F f) {
  constexpr Index L = lanes<double>;
  constexpr int S = N == 1 ? 8 : N == 2 ? 4 : N == 3 ? 3 : N <= 6 ? 2 : 1;
  Vec<double> sum[S][N];
  for (auto& strand : sum)
    for (auto& vector : strand) vector = Vec<double>(Ring::none);
  const auto add = [&](int s, Index i) RNNCORE_HOT {
    const Vec<double> factor(a[i]);
#pragma GCC unroll 8
    for (int k = 0; k < N; ++k) sum[s][k] = Ring::add(sum[s][k], factor, load(rows + i * width + k * L));
  };
  Index i = 0;
  for (; i + S <= n; i += S)
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) add(s, i + s);
#pragma GCC unroll 8
  for (int s = 0; s + 1 < S; ++s)
    if (i + s < n) add(s, i + s);
#pragma GCC unroll 8
  for (int s = 1; s < S; ++s)
#pragma GCC unroll 8
    for (int k = 0; k < N; ++k) sum[0][k] = Ring::join(sum[0][k], sum[s][k]);
#pragma GCC unroll 8
  for (int k = 0; k < N; ++k) f(k * L, sum[0][k]);
}

/// f(j, v) for each vector of a row (n) times rows (n, width).
template <class Ring, class F>
void crf_product(const double* a, Index n, const double* rows, Index width, F f) {
  constexpr Index L = lanes<double>;
  const EqualParts parts(width / L, 8);
  for (Index p = 0; p < parts.count; ++p) {
    const Index first = parts.begin(p) * L;
    const auto own = [&](Index j, Vec<double> v) RNNCORE_HOT { f(first + j, v); };
    const auto run = [&]<int N>() { crf_product_tile<Ring, N>(a, n, rows + first, width, own); };
    switch (parts.size(p)) {
    case 1:
      run.template operator()<1>();
      break;
    case 2:
      run.template operator()<2>();
      break;
    case 3:
      run.template operator()<3>();
      break;
    case 4:
      run.template operator()<4>();
      break;
    case 5:
      run.template operator()<5>();
      break;
    case 6:
      run.template operator()<6>();
      break;
    case 7:
      run.template operator()<7>();
      break;
    default:
      run.template operator()<8>();
    }
  }
}

/// The largest of a row, or a number where it is `impossible`: what logarithms of sums are relative to.
inline double crf_top(const double* row, Index n) {
  Vec<double> top(impossible);
  for (Index j = 0; j < n; j += lanes<double>) top = upper(top, load(row + j));
  return largest_of(top);
}

/// log sum_j exp(row_j)
inline double crf_log_sum(const double* row, Index n) {
  const double top = crf_top(row, n);
  if (top == impossible) return top;
  Vec<double> sum(0.);
  for (Index j = 0; j < n; j += lanes<double>) sum = sum + exp_below(load(row + j) - Vec<double>(top));
  return top + std::log(sum_of(sum));
}

/// to_j = log sum_i exp(a_i + rows_ij)
inline void crf_log_product(const double* a, Index n, const double* rows, Index width, double* to) {
  constexpr Index L = lanes<double>;
  for (Index j = 0; j < width; j += L) {
    Vec<double> top(-largest_double), sum(0.);
    for (Index i = 0; i < n; ++i) top = upper(top, Vec<double>(a[i]) + load(rows + i * width + j));
    for (Index i = 0; i < n; ++i)
      sum = sum + exp_below(Vec<double>(a[i]) + load(rows + i * width + j) - top);
    alignas(64) double sums[L], tops[L];
    store(sums, sum);
    store(tops, top);
    for (Index k = 0; k < L; ++k) to[j + k] = sums[k] > 0 ? tops[k] + std::log(sums[k]) : impossible;
  }
}

/// The first n numbers of a vector, the others impossible.
RNNCORE_INLINE Vec<double> possible(const double* from, Index n) {
  if (n >= lanes<double>) return load(from);
#if defined(__AVX512F__)
  return _mm512_mask_loadu_pd(_mm512_set1_pd(impossible), __mmask8((1u << n) - 1), from);
#else
  alignas(64) double buffer[lanes<double>];
  for (Index i = 0; i < lanes<double>; ++i) buffer[i] = i < n ? from[i] : impossible;
  return load(buffer);
#endif
}

RNNCORE_INLINE Vec<double> possible(const float* from, Index n) {
#if defined(__AVX512F__) && defined(__AVX512VL__)
  const unsigned mask = n >= lanes<double> ? 0xff : (1u << n) - 1;
  return _mm512_cvtps_pd(_mm256_mask_loadu_ps(_mm256_set1_ps(float(impossible)), __mmask8(mask), from));
#else
  alignas(64) double buffer[lanes<double>];
  for (Index i = 0; i < lanes<double>; ++i) buffer[i] = i < n ? double(from[i]) : impossible;
  return load(buffer);
#endif
}

/// Where the emissions of step t are.
template <class T>
RNNCORE_INLINE const T* crf_emissions(const CrfSequence<T>& s, Index t) {
  return s.emissions + t * s.stride;
}

} // namespace rnncore::RNNCORE_LEVEL
