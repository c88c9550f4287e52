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
RNNCORE_INLINE Vec<double> upper(Vec<double> a, Vec<double> b) { return packets::pmax(a.p, b.p); }
RNNCORE_INLINE Vec<double> lower(Vec<double> a, Vec<double> b) { return packets::pmin(a.p, b.p); }
RNNCORE_INLINE double largest_of(Vec<double> v) { return packets::predux_max(v.p); }
RNNCORE_INLINE double smallest_of(Vec<double> v) { return packets::predux_min(v.p); }

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

/// The lower of both, where v is above a bound.
RNNCORE_INLINE Vec<double> lower_above(double bound, Vec<double> low, Vec<double> v) {
#if defined(__AVX512F__)
  const __mmask8 above = _mm512_cmp_pd_mask(v.p, _mm512_set1_pd(bound), _CMP_GT_OQ);
  return _mm512_mask_min_pd(low.p, above, low.p, v.p);
#else
  return lower(low, select_le(v, Vec<double>(bound), Vec<double>(largest_double), v));
#endif
}

/// Whether neither NaN nor +inf has been seen: a sum, which they do not leave, and which no finite numbers
/// bring there.
struct CrfSound {
  Vec<double> sum{0.};

  RNNCORE_INLINE void see(Vec<double> v) { sum = fma(v, Vec<double>(0x1p-100), sum); }
  RNNCORE_INLINE bool holds() const { return sum_of(sum) <= largest_double; }
};

/// What numbers have been seen.
struct CrfRange {
  Vec<double> high{impossible}, least{largest_double};
  CrfSound sound;

  RNNCORE_INLINE void see(Vec<double> v) {
    sound.see(v);
    high = upper(high, v);
    least = lower_above(impossible, least, v);
  }

  RNNCORE_INLINE double top() const { return largest_of(high); }
  RNNCORE_INLINE double low() const { return smallest_of(least); } // of what is possible
  RNNCORE_INLINE bool finite() const { return sound.holds(); }     // neither NaN nor +inf
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
  fill(t.to, (2 * K + 2) * W, impossible);
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
  static RNNCORE_INLINE double total(Vec<double> v) { return sum_of(v); }
};

/// The largest of sums.
struct LargestSum {
  static constexpr double none = impossible;
  static RNNCORE_INLINE Vec<double> add(Vec<double> best, Vec<double> a, Vec<double> b) {
    return upper(best, a + b);
  }
  static RNNCORE_INLINE double total(Vec<double> v) { return largest_of(v); }
};

/// Rows of numbers of tags, one of each sequence that is at hand.
struct CrfRows {
  double* at[crf_rows];
};

/// N vectors of rows (n) times a matrix, from number j on. The sums of one row wait for each other: those
/// of the others are computed meanwhile, of which each has the same bits in any company.
template <class Ring, int N>
void crf_product_tile(const CrfRows& a, Index n, const double* matrix, Index width, const CrfRows& to,
                      Index j) {
  constexpr Index L = lanes<double>;
  Vec<double> sum[crf_rows][N];
  for (auto& row : sum)
    for (auto& vector : row) vector = Vec<double>(Ring::none);
  for (Index i = 0; i < n; ++i) {
    Vec<double> v[N];
  RNNCORE_UNROLL(4)
    for (int k = 0; k < N; ++k) v[k] = load(matrix + i * width + j + k * L);
    RNNCORE_UNROLL(4)
    for (int r = 0; r < crf_rows; ++r) {
      const Vec<double> factor(a.at[r][i]);
      RNNCORE_UNROLL(4)
      for (int k = 0; k < N; ++k) sum[r][k] = Ring::add(sum[r][k], factor, v[k]);
    }
  }
  RNNCORE_UNROLL(4)
  for (int r = 0; r < crf_rows; ++r)
    RNNCORE_UNROLL(4)
    for (int k = 0; k < N; ++k) store(to.at[r] + j + k * L, sum[r][k]);
}

/// A number, and beyond it what adds nothing.
template <class Ring>
RNNCORE_INLINE Vec<double> first_of(double value) {
  alignas(64) static constexpr double counts[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  return select_le(load(counts), Vec<double>(0.), Vec<double>(value), Vec<double>(Ring::none));
}

/// Number j of rows times a matrix, from its column j (width), and nothing behind it.
template <class Ring>
void crf_product_column(const CrfRows& a, const double* column, Index width, const CrfRows& to, Index j) {
  constexpr Index L = lanes<double>;
  Vec<double> sum[crf_rows];
  for (auto& row : sum) row = Vec<double>(Ring::none);
  for (Index i = 0; i < width; i += L) {
    const Vec<double> v = load(column + i);
    RNNCORE_UNROLL(4)
    for (int r = 0; r < crf_rows; ++r) sum[r] = Ring::add(sum[r], load(a.at[r] + i), v);
  }
  for (int r = 0; r < crf_rows; ++r) store(to.at[r] + j, first_of<Ring>(Ring::total(sum[r])));
}

/// to (width) = a (n) times a matrix (n, width), of which only n columns count, and which comes transposed,
/// too. A single column behind whole vectors, as tags by BIO often have one, does not take a vector's work.
template <class Ring>
void crf_product(const CrfRows& a, Index n, const double* matrix, const double* transposed, Index width,
                 const CrfRows& to) {
  constexpr Index L = lanes<double>, most = registers == 32 ? 4 : 2;
  const bool single = n > L && n % L == 1;
  const Index used = single ? n / L : (n + L - 1) / L;
  for (Index first = 0; first < used;) {
    // As equal as they can be: 5 is 3 and 2.
    const Index left = used - first,
                size = left > most && left < 2 * most ? (left + 1) / 2 : min(left, most);
    const auto run = [&]<int N>() { crf_product_tile<Ring, N>(a, n, matrix, width, to, first * L); };
    switch (size) {
    case 1:
      run.template operator()<1>();
      break;
    case 2:
      run.template operator()<2>();
      break;
    case 3:
      run.template operator()<(most > 3 ? 3 : 2)>();
      break;
    default:
      run.template operator()<most>();
    }
    first += size;
  }
  if (single) crf_product_column<Ring>(a, transposed + (n - 1) * width, width, to, n - 1);
  for (Index j = (n + L - 1) / L * L; j < width; j += L)
    for (Index r = 0; r < crf_rows; ++r) store(to.at[r] + j, Vec<double>(Ring::none));
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

/// The first n numbers of a vector, in another precision.
RNNCORE_INLINE void store_first(double* to, Vec<double> v, Index n) { store(to, v, n); }

RNNCORE_INLINE void store_first(float* to, Vec<double> v, Index n) {
#if defined(__AVX512F__) && defined(__AVX512VL__)
  const unsigned mask = n >= lanes<double> ? 0xff : (1u << n) - 1;
  _mm256_mask_storeu_ps(to, __mmask8(mask), _mm512_cvtpd_ps(v.p));
#else
  alignas(64) double buffer[lanes<double>];
  store(buffer, v);
  for (Index i = 0; i < min(n, Index(lanes<double>)); ++i) to[i] = float(buffer[i]);
#endif
}

/// Adds the whole numbers that are nearest to those of a row (n).
inline void crf_add_rounded(const double* row, Index n, double factor, int64_t* to) {
#if defined(__AVX512DQ__)
  constexpr Index L = lanes<double>;
  for (Index j = 0; j < n; j += L) {
    const unsigned mask = n - j >= L ? 0xff : (1u << (n - j)) - 1;
    const Vec<double> scaled = load(row + j) * Vec<double>(factor);
    const __m512i sum = _mm512_maskz_loadu_epi64(__mmask8(mask), to + j) + _mm512_cvtpd_epi64(scaled.p);
    _mm512_mask_storeu_epi64(to + j, __mmask8(mask), sum);
  }
#else
  for (Index j = 0; j < n; ++j) to[j] += int64_t(std::nearbyint(factor * row[j]));
#endif
}

/// Where the emissions of step t are.
template <class T>
RNNCORE_INLINE const T* crf_emissions(const CrfSequence<T>& s, Index t) {
  return s.emissions + t * s.stride;
}

} // namespace rnncore::RNNCORE_LEVEL
