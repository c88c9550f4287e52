// CRFs against all sequences of tags in turn: sums by probabilities and by logarithms, gradients, the best.
#include <algorithm>

#include "kernels/crf_paths.hpp"
#include "kernels/crf_sums.hpp"

#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

constexpr Index steps = 3;
constexpr double per = double(int64_t(1) << 50);

/// A CRF, emissions of one sequence, and a target.
template <class T>
struct Model {
  Index K;
  std::vector<T> x, transitions, start, end;
  std::vector<int64_t> target;
  std::vector<char> prepared;

  Model(Index tags, double scale)
      : K(tags), x(fractions<T>(steps * K, 1)), transitions(fractions<T>(K * K, 2)),
        start(fractions<T>(K, 3)), end(fractions<T>(K, 4)), target{1 % K, K - 1, 0},
        prepared(std::size_t(crf_prepared(K)) + 64) {
    for (T& number : x) number *= T(scale);
    crf_prepare<T>({K, transitions.data(), start.data(), end.data(), nullptr}, memory());
  }

  void* memory() {
    return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(prepared.data()) + 63) & ~uintptr_t(63));
  }

  double score(const Index* y) const {
    double sum = double(start[y[0]]) + double(end[y[steps - 1]]);
    for (Index t = 0; t < steps; ++t) {
      sum += double(x[t * K + y[t]]);
      if (t > 0) sum += double(transitions[y[t - 1] * K + y[t]]);
    }
    return sum;
  }

  /// f(y, score) for each y that agrees with the target: exactly, or not at the second step.
  template <class F>
  void each(bool agreeing, bool partial, F f) const {
    Index y[steps];
    for (Index n = 0; n < K * K * K; ++n) {
      y[0] = n / K / K, y[1] = n / K % K, y[2] = n % K;
      bool own = true;
      for (Index t = 0; t < steps; ++t) own = own && (y[t] == target[t] || (partial && t == 1));
      if (!agreeing || own) f(y, score(y));
    }
  }
};

/// log Z less `log`, the log of the sum over what agrees, and its gradient.
template <class T>
struct Sums {
  double log = 0;
  std::vector<double> x, scores;

  Sums(const Model<T>& m, bool agreeing, bool partial)
      : x(std::size_t(steps * m.K)), scores(std::size_t((m.K + 2) * m.K)) {
    double top = -INFINITY, sum = 0;
    m.each(agreeing, partial, [&](const Index*, double score) { top = std::max(top, score); });
    m.each(agreeing, partial, [&](const Index*, double score) { sum += std::exp(score - top); });
    log = top + std::log(sum);
    m.each(agreeing, partial, [&](const Index* y, double score) {
      const double p = std::exp(score - log);
      for (Index t = 0; t < steps; ++t) x[t * m.K + y[t]] += p;
      for (Index t = 1; t < steps; ++t) scores[y[t - 1] * m.K + y[t]] += p;
      scores[m.K * m.K + y[0]] += p;
      scores[(m.K + 1) * m.K + y[steps - 1]] += p;
    });
  }
};

/// A sequence and its first two steps, side by side and alone.
template <class T>
void in_company(const CrfLoss<T>& call) {
  const Index K = static_cast<const CrfTable*>(call.prepared)->tags,
              bytes = crf_loss_work<T>(K, steps, true);
  CrfLoss<T> calls[] = {call, call, call};
  std::vector<T> gradients[6];
  std::vector<int64_t> sums[2];
  std::vector<double> work[3];
  for (auto& own : gradients) own.resize(std::size_t(steps * K));
  for (auto& own : sums) own.resize(std::size_t((K + 2) * K));
  for (auto& own : work) own.resize(std::size_t(bytes) / 8 + 8);
  double together[3], alone[3];
  calls[1].steps = 2;
  for (int r = 0; r < 3; ++r) {
    calls[r].work = work[r].data();
    calls[r].sums = sums[0].data();
    calls[r].gradient = gradients[r].data();
  }
  crf_loss<T>(calls, 3, together);
  for (int r = 0; r < 3; ++r) {
    calls[r].sums = sums[1].data();
    calls[r].gradient = gradients[3 + r].data();
    crf_loss<T>(&calls[r], 1, &alone[r]);
    CHECK(together[r] == alone[r] && gradients[r] == gradients[3 + r], "row %d: loss %.17g, alone %.17g", r,
          together[r], alone[r]);
  }
  CHECK(sums[0] == sums[1], "%td tags: the scores' gradients differ in company", K);
}

template <class T>
void loss(Model<T>& m, bool partial, double scale) {
  const Index K = m.K;
  std::vector<T> gradient(std::size_t(steps * K));
  std::vector<int64_t> sums(std::size_t((K + 2) * K)), target = m.target;
  if (partial) target[1] = -1;
  std::vector<double> work(std::size_t(crf_loss_work<T>(K, steps, true)) / 8 + 8);
  CrfLoss<T> call{};
  call.prepared = m.memory();
  call.emissions = m.x.data();
  call.steps = steps;
  call.stride = K;
  call.work = work.data();
  call.targets = target.data();
  call.target_stride = 1;
  call.scale = 1;
  call.per = per;
  double without, found;
  crf_loss<T>(&call, 1, &without);
  call.gradient = gradient.data();
  call.sums = sums.data();
  crf_loss<T>(&call, 1, &found);
  in_company(call);
  const Sums<T> all(m, false, partial), own(m, true, partial);
  const double error = 1e-13 * std::max(1., scale);
  CHECK(found == without, "%td tags: loss %.17g with gradients, %.17g without", K, found, without);
  CHECK(std::fabs(found - (all.log - own.log)) <= error, "%td tags, scale %g: loss %.17g, not %.17g", K,
        scale, found, all.log - own.log);
  for (Index i = 0; i < steps * K; ++i)
    CHECK(std::fabs(double(gradient[i]) - (all.x[i] - own.x[i])) <= (sizeof(T) < 8 ? 1e-7 : error),
          "%td tags, scale %g: gradient %td is %g, not %g", K, scale, i, double(gradient[i]),
          all.x[i] - own.x[i]);
  for (Index i = 0; i < (K + 2) * K; ++i)
    CHECK(std::fabs(double(sums[i]) / per - (all.scores[i] - own.scores[i])) <= error,
          "%td tags, scale %g: gradient of score %td is %g, not %g", K, scale, i, double(sums[i]) / per,
          all.scores[i] - own.scores[i]);
}

template <class T>
void paths(Model<T>& m) {
  const Index count = std::min<Index>(m.K * m.K * m.K, 7);
  std::vector<double> wanted;
  m.each(false, false, [&](const Index*, double score) { wanted.push_back(score); });
  std::sort(wanted.begin(), wanted.end(), std::greater<double>());
  for (const Index n : {Index(1), count}) {
    std::vector<int64_t> tags(std::size_t(n * steps));
    std::vector<double> scores(static_cast<std::size_t>(n)),
        work(std::size_t(crf_decode_work<T>(m.K, steps, n)) / 8 + 8);
    CrfDecode<T> call{};
    call.prepared = m.memory();
    call.emissions = m.x.data();
    call.steps = steps;
    call.stride = m.K;
    call.work = work.data();
    call.count = n;
    call.tags = tags.data();
    call.tag_stride = 1;
    call.next = steps;
    call.scores = scores.data();
    call.next_score = 1;
    crf_decode<T>(&call, 1);
    for (Index r = 0; r < n; ++r) {
      const Index y[steps] = {Index(tags[r * steps]), Index(tags[r * steps + 1]),
                              Index(tags[r * steps + 2])};
      CHECK(std::fabs(scores[r] - wanted[r]) <= 1e-12 * (1 + std::fabs(wanted[r])),
            "%td tags: the %td-th best of %td has %.17g, not %.17g", m.K, r, n, scores[r], wanted[r]);
      CHECK(std::fabs(m.score(y) - scores[r]) <= 1e-12 * (1 + std::fabs(scores[r])),
            "%td tags: tags of the %td-th best of %td", m.K, r, n);
    }
  }
}

template <class T>
void test() {
  for (const Index K : edge_sizes<double>()) {
    if (K > 41) continue;                        // there are K^3 sequences
    for (const double scale : {1., 120., 1e4}) { // probabilities; probabilities or logarithms; logarithms
      Model<T> m(K, scale);
      for (const bool partial : {false, true}) loss(m, partial, scale);
      paths(m);
    }
  }
}

} // namespace

void test_crf() {
  test<float>();
  test<double>();
}

} // namespace rnncore::RNNCORE_LEVEL
