// The RNN transducer (Graves 2012): nodes (t, u) of a lattice, each a row of the joint network.
//
//   z(t, u) = W tanh(f_t + g_u) + b
//   alpha(t, u) = alpha(t-1, u) blank(t-1, u) + alpha(t, u-1) label(t, u-1)
//   beta(t, u) = beta(t+1, u) blank(t, u) + beta(t, u+1) label(t, u)
//
// The product with W is `Linear`'s. Sums over paths are those of logarithms in double. Nodes with the same
// t + u do not depend on one another: they are computed, and lie, side by side.
#pragma once

#include <cmath>

#include "../engine/transducer.hpp"
#include "pointwise.hpp"

namespace rnncore::RNNCORE_LEVEL {

template <class T>
void transducer_join(const JointNodes<T>& nodes, Team team) {
  const Index width = nodes.width;
  const Share rows(team, nodes.rows);
  for (Index r = rows.begin; r < rows.end; ++r)
    for_each_vector(
        nodes.h + r * width, width, [](Vec<T> f, Vec<T> g) RNNCORE_HOT { return tanh(f + g); },
        nodes.f + nodes.frame[r] * width, nodes.g + nodes.label[r] * width);
}

/// Each thread has some columns, so that sums run in the order of the nodes.
template <class T>
void transducer_part(const JointGradients<T>& d, Team team) {
  const JointNodes<T>& nodes = d.nodes;
  const Index width = nodes.width;
  const Share vectors(team, ceil_div(width, lanes<T>));
  const Index begin = vectors.begin * lanes<T>, end = min(vectors.end * lanes<T>, width);
  for (Index r = 0; r < nodes.rows; ++r) {
    const T *const h = nodes.h + r * width, *const dh = d.dh + r * width;
    T *const df = d.df + nodes.frame[r] * width, *const dg = d.dg + nodes.label[r] * width;
    for (Index i = begin; i < end; i += lanes<T>) {
      const Index n = end - i;
      const Vec<T> own = load(dh + i, n) * Tanh::slope(load(h + i, n));
      store(df + i, load(df + i, n) + own, n);
      store(dg + i, load(dg + i, n) + own, n);
    }
  }
}

/// exp(z - largest) of a row, handed to f(place, exponentials, lanes that count); returns their sum.
template <class T, class F>
RNNCORE_INLINE T exponentials(const T* z, Index width, T top, F f) {
  const Vec<T> most(top);
  Vec<T> total(T(0));
  for (Index i = 0; i < width; i += lanes<T>) {
    const Vec<T> e = exp_below(load(z + i, width - i) - most);
    total = total + first_lanes(e, width - i);
    f(i, e, width - i);
  }
  return sum_of(total);
}

template <class T>
RNNCORE_INLINE Index offset(const NodeLogits<T>& nodes, Index node) {
  return (nodes.row ? nodes.row[node] : node) * nodes.width;
}

/// Not std::max, which may pass over NaN.
RNNCORE_INLINE double arc(double log_p) { return log_p < no_path ? no_path : log_p; }

template <class T>
void transducer_score(const NodeLogits<T>& nodes, Team team) {
  const Share rows(team, nodes.rows);
  for (Index r = rows.begin; r < rows.end; ++r) {
    const T* const z = nodes.logits + offset(nodes, r);
    const T top = largest(z, nodes.width);
    const T sum = exponentials(z, nodes.width, top, [](Index, Vec<T>, Index) RNNCORE_HOT {});
    const double share = std::log(double(sum)), most(top);
    const Index place = nodes.place[r];
    // The differences first: large logits would swallow the logarithm.
    nodes.blank_arcs[place] = arc(double(z[nodes.blank]) - most - share);
    if (nodes.next[r] >= 0) nodes.label_arcs[place] = arc(double(z[nodes.next[r]]) - most - share);
  }
}

/// (a + b) p - (a at the blank, b at the next label), where a and b are the probabilities of the arcs times
/// the node's scale.
template <class T>
void transducer_differentiate(const NodeGradients<T>& d, Team team) {
  const NodeLogits<T>& nodes = d.nodes;
  const Share rows(team, nodes.rows);
  for (Index r = rows.begin; r < rows.end; ++r) {
    const T* const z = nodes.logits + offset(nodes, r);
    T* const dz = d.gradients + offset(nodes, r);
    const Index place = nodes.place[r];
    const int32_t next = nodes.next[r];
    const double by_blank = d.scale[r] * nodes.blank_arcs[place];
    const double by_label = next < 0 ? 0 : d.scale[r] * d.label_weight * nodes.label_arcs[place];
    const T sum = exponentials(z, nodes.width, largest(z, nodes.width),
                               [=](Index i, Vec<T> e, Index n) RNNCORE_HOT { store(dz + i, e, n); });
    const Vec<T> share(T((by_blank + by_label) / double(sum)));
    for_each_vector(
        dz, nodes.width, [=](Vec<T> e) RNNCORE_HOT { return e * share; }, static_cast<const T*>(dz));
    dz[nodes.blank] -= T(by_blank);
    if (next >= 0) dz[next] -= T(by_label);
  }
}

/// log(exp(a) + exp(b)) of numbers that are finite; NaN if one is.
RNNCORE_INLINE Vec<double> log_add(Vec<double> a, Vec<double> b) {
  return larger(a, b) + log1p_of(exp_below(minus_abs(a - b)));
}

/// exp(x) of what would be at most zero if nothing were rounded.
RNNCORE_INLINE Vec<double> probability(Vec<double> x) {
  const Vec<double> zero(0.0);
  return exp_below(select_le(zero, x, zero, x));
}

/// The logarithms of alpha of all places; returns that of all paths.
inline double walk_forward(const Lattice& at, double* alpha, double* by_label) {
  constexpr Index L = lanes<double>;
  const Index width = at.labels + 1, places = (at.frames + at.labels) * width;
  for (Index u = 0; u < width; ++u) alpha[u] = u ? no_path : 0;
  by_label[0] = no_path;
  for (Index d = width; d < places; d += width) {
    const Index before = d - width;
    for (Index u = 0; u < width; u += L) {
      const Index i = before + u, n = width - u;
      store(by_label + 1 + u, load(alpha + i, n) + load(at.label_arcs + i, n), n);
    }
    for (Index u = 0; u < width; u += L) {
      const Index i = before + u, n = width - u;
      const Vec<double> by_blank = load(alpha + i, n) + load(at.blank_arcs + i, n);
      store(alpha + d + u, log_add(by_blank, load(by_label + u, n)), n);
    }
  }
  return alpha[places - 1] + at.blank_arcs[places - 1];
}

/// Arcs become the probabilities, given that the paths have `total`, that one takes them. `beta`: of the
/// diagonal behind.
inline void walk_backward(const Lattice& at, const double* alpha, double total, double* beta) {
  constexpr Index L = lanes<double>;
  const Index width = at.labels + 1;
  for (Index u = 0; u <= width; ++u) beta[u] = u == at.labels ? 0 : no_path;
  const Vec<double> all(total);
  for (Index d = (at.frames + at.labels - 1) * width; d >= 0; d -= width)
    for (Index u = 0; u < width; u += L) {
      const Index i = d + u, n = width - u;
      const Vec<double> by_blank = load(at.blank_arcs + i, n) + load(beta + u, n);
      const Vec<double> by_label = load(at.label_arcs + i, n) + load(beta + u + 1, n);
      const Vec<double> before = load(alpha + i, n) - all;
      store(at.blank_arcs + i, probability(before + by_blank), n);
      store(at.label_arcs + i, probability(before + by_label), n);
      store(beta + u, log_add(by_blank, by_label), n);
    }
}

inline double transducer_walk(const Lattice& at, bool wants_gradients) {
  const Index width = at.labels + 1, places = (at.frames + at.labels) * width;
  double *const alpha = at.work, *const diagonal = alpha + places;
  const double total = walk_forward(at, alpha, diagonal);
  const bool none = total < least_path;
  if (wants_gradients && none)
    for (Index i = 0; i < places; ++i) at.blank_arcs[i] = at.label_arcs[i] = 0;
  else if (wants_gradients)
    walk_backward(at, alpha, total, diagonal);
  return none ? -HUGE_VAL : total;
}

template <class T>
constexpr Transducer<T> transducer{transducer_join<T>, transducer_part<T>, transducer_score<T>,
                                   transducer_differentiate<T>, transducer_walk};

} // namespace rnncore::RNNCORE_LEVEL
