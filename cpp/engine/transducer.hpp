// What crosses the wall for the RNN transducer: see `api.hpp`.
#pragma once

#include "api.hpp"

namespace rnncore {

/// Nodes of lattices as rows of a joint network: node r joins row frame[r] of f and row label[r] of g.
template <class T>
struct JointNodes {
  Index rows, width;
  const int32_t *frame, *label;
  const T *f, *g;
  T* h; // (rows, width)  tanh(f + g)
};

template <class T>
struct JointGradients {
  JointNodes<T> nodes;
  const T* dh;
  T *df, *dg; // added to
};

/// The logits of nodes, and where the numbers of their arcs lie: those of a blank, which goes on to the
/// next frame, and of a label.
template <class T>
struct NodeLogits {
  Index rows, width;
  const T* logits;
  const Index* row;    // (rows)  of the logits, or null: one after the other
  const Index* place;  // (rows)  of the node in its lattice
  const int32_t* next; // (rows)  the next label; -1: there is none
  Index blank;
  double *blank_arcs, *label_arcs;
};

/// Their gradients, which may take the place of the logits.
template <class T>
struct NodeGradients {
  NodeLogits<T> nodes;
  const double* scale; // (rows)
  double label_weight; // how much labels count, blanks being one
  T* gradients;        // at the rows of the logits
};

/// The nodes (t, u) of one sequence. Node (t, u) lies at [t + u][u] of `frames` + `labels` diagonals.
/// Places that are no node, and arcs that there are not, hold `no_path`.
struct Lattice {
  Index frames, labels; // labels may be 0
  double *blank_arcs, *label_arcs;
  double* work; // as many numbers as there are places, and a diagonal with one more
};

/// The logarithm of no probability, finite so that a difference of two is no NaN; the sum along a path that
/// has one is less than `least_path`.
constexpr double no_path = -1e300, least_path = -1e290;

template <class T>
struct Transducer {
  void (*join)(const JointNodes<T>&, Team);
  void (*part)(const JointGradients<T>&, Team);
  /// log-probabilities of the arcs
  void (*score)(const NodeLogits<T>&, Team);
  void (*differentiate)(const NodeGradients<T>&, Team);
  /// log P(target), -infinity where there is no path. If it `wants_gradients`, arcs become the
  /// probabilities, given the target, that a path takes them.
  double (*walk)(const Lattice&, bool wants_gradients);
};

} // namespace rnncore
