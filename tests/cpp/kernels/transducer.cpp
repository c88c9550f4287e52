// The transducer's kernels against plain loops: logits and their gradients, and walks through lattices.
#include "kernels/transducer.hpp"

#include <vector>

#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

double sum_log(double a, double b) {
  const double top = a > b ? a : b, low = a > b ? b : a;
  return top == -INFINITY ? top : top + std::log1p(std::exp(low - top));
}

bool near(double a, double b, double tolerance) {
  return std::fabs(a - b) <= tolerance * (1 + std::fabs(b));
}

/// A lattice as it lies, and its arcs by node.
struct Example {
  Index frames, labels;
  std::vector<double> blanks, emits, work; // by place
  std::vector<double> blank, label;        // by node

  Index place(Index t, Index u) const { return (t + u) * (labels + 1) + u; }
  Index node(Index t, Index u) const { return t * (labels + 1) + u; }
  Lattice lattice() { return {frames, labels, blanks.data(), emits.data(), work.data()}; }

  Example(Index frames_, Index labels_, double scale) : frames(frames_), labels(labels_) {
    const Index places = (frames + labels) * (labels + 1), nodes = frames * (labels + 1);
    blanks.assign(places, no_path);
    emits.assign(places, no_path);
    work.assign(places + labels + 2, NAN);
    for (const double f : fractions<double>(nodes, 1)) blank.push_back(scale * (f - 1));
    for (const double f : fractions<double>(nodes, 2)) label.push_back(scale * (f - 1));
    for (Index t = 0; t < frames; ++t)
      for (Index u = 0; u <= labels; ++u) {
        blanks[place(t, u)] = blank[node(t, u)];
        if (u < labels) emits[place(t, u)] = label[node(t, u)];
      }
  }
};

void walks(Index frames, Index labels, double scale) {
  Example e(frames, labels, scale), same(frames, labels, scale);
  std::vector<double> alpha(frames * (labels + 1), -INFINITY), beta(alpha);
  for (Index t = 0; t < frames; ++t)
    for (Index u = 0; u <= labels; ++u) {
      const double by_blank = t ? alpha[e.node(t - 1, u)] + e.blank[e.node(t - 1, u)] : -INFINITY;
      const double by_label = u ? alpha[e.node(t, u - 1)] + e.label[e.node(t, u - 1)] : -INFINITY;
      alpha[e.node(t, u)] = t + u ? sum_log(by_blank, by_label) : 0;
    }
  const auto after_blank = [&](Index t, Index u) {
    return t + 1 < frames ? beta[e.node(t + 1, u)] : u == labels ? 0 : -INFINITY;
  };
  for (Index t = frames - 1; t >= 0; --t)
    for (Index u = labels; u >= 0; --u)
      beta[e.node(t, u)] = sum_log(e.blank[e.node(t, u)] + after_blank(t, u),
                                   u < labels ? e.label[e.node(t, u)] + beta[e.node(t, u + 1)] : -INFINITY);
  const double found = transducer_walk(e.lattice(), true), total = beta[0];
  CHECK(near(found, total, 1e-13), "%td frames, %td labels: %.17g, not %.17g", frames, labels, found,
        total);
  CHECK(transducer_walk(same.lattice(), false) == found, "without gradients");
  for (Index t = 0; t < frames; ++t)
    for (Index u = 0; u <= labels; ++u) {
      const Index n = e.node(t, u);
      const double by_blank = std::exp(alpha[n] + e.blank[n] + after_blank(t, u) - total);
      const double by_label = u < labels ? std::exp(alpha[n] + e.label[n] + beta[n + 1] - total) : 0;
      CHECK(near(e.blanks[e.place(t, u)], by_blank, 1e-11), "the blank of (%td, %td)", t, u);
      CHECK(near(e.emits[e.place(t, u)], by_label, 1e-11), "the label of (%td, %td)", t, u);
    }
}

void hopeless() {
  Example e(3, 2, 1.);
  for (Index t = 0; t < 3; ++t) e.emits[e.place(t, 1)] = no_path;
  CHECK(transducer_walk(e.lattice(), true) == -HUGE_VAL, "no path");
  for (const double arc : e.blanks) CHECK(arc == 0, "an arc of no path is %g", arc);
  Example n(3, 2, 1.);
  n.blanks[n.place(1, 1)] = NAN;
  CHECK(std::isnan(transducer_walk(n.lattice(), true)), "NaN");
  CHECK(std::isnan(n.blanks[0]), "NaN everywhere");
}

template <class T>
void logits(Index width) {
  constexpr Index rows = 3;
  const double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-14;
  std::vector<T> z = fractions<T>(rows * width, 3), dz(z.size());
  const Index place[rows] = {2, 0, 1}, blank = width - 1;
  const int32_t next[rows] = {0, -1, int32_t(width / 2)};
  const double scale[rows] = {1, -2, 0.5};
  double blanks[rows] = {0.25, 0.5, 0.125}, emits[rows] = {0.5, 0.25, 0.75};
  const NodeLogits<T> nodes{rows, width, z.data(), nullptr, place, next, blank, blanks, emits};
  transducer_differentiate<T>({nodes, scale, 1.5, dz.data()}, alone);
  for (Index r = 0; r < rows; ++r) {
    double sum = 0;
    for (Index k = 0; k < width; ++k) sum += std::exp(double(z[r * width + k]));
    const double a = scale[r] * blanks[place[r]], b = next[r] < 0 ? 0 : 1.5 * scale[r] * emits[place[r]];
    for (Index k = 0; k < width; ++k) {
      const double want = (a + b) * std::exp(double(z[r * width + k])) / sum - (k == blank ? a : 0) -
                          (k == next[r] ? b : 0);
      CHECK(near(dz[r * width + k], want, tolerance), "gradient %td of %td in row %td", k, width, r);
    }
  }
  transducer_score(nodes, alone);
  CHECK(emits[place[1]] == 0.5, "no label, no arc");
  for (Index r = 0; r < rows; ++r) {
    double sum = 0;
    for (Index k = 0; k < width; ++k) sum += std::exp(double(z[r * width + k]));
    const double want = double(z[r * width + blank]) - std::log(sum);
    CHECK(near(blanks[place[r]], want, tolerance), "blank of %td in row %td", width, r);
  }
}

} // namespace

void test_transducer() {
  constexpr Index L = lanes<double>;
  for (const Index frames : {Index(1), Index(2), L, 3 * L + 1})
    for (const Index labels : {Index(0), Index(1), L - 1, L, 2 * L + 1})
      for (const double scale : {0.5, 30.}) walks(frames, labels, scale);
  hopeless();
  for (const Index width : edge_sizes<float>()) logits<float>(width);
  for (const Index width : edge_sizes<double>()) logits<double>(width);
}

} // namespace rnncore::RNNCORE_LEVEL
