// Losses of RNN transducers over NumPy arrays. Python has checked all arguments.
#pragma once

#include "../engine/transducer.hpp"
#include "linear.hpp"

namespace rnncore {

/// The lattices of a batch, one after the other, and their nodes in the order of t and u.
class Lattices {
public:
  /// lengths (B), counts (B): frames and labels of each sequence; labels: of one after the other. `frames`
  /// and `width`: axes T and U + 1 of what comes padded.
  Lattices(const py::object& lengths, const py::object& labels, const py::object& counts, Index blank,
           Index frames, Index width, Index classes);

  Index batch() const { return batch_; }
  Index nodes() const { return nodes_; }

  /// Nodes that are computed at once.
  struct Chunk {
    Index rows = 0;
    std::vector<int32_t> frame, label, next; // see JointNodes and NodeLogits
    std::vector<Index> row, place;
    std::vector<double> scale;
  };
  /// f(chunk) for all nodes, with a pause after each chunk of `most` nodes.
  template <class F>
  void in_chunks(Index most, F f) const;
  /// The same for a gradient, each sequence's times its scale (B). Sequences whose scale is zero are left
  /// out, and nodes that a path takes with a probability below `least`.
  template <class F>
  void in_chunks(Index most, const double* scales, double least, F f) const;

  /// The logits of a chunk: all of them, or those of its nodes alone.
  template <class T>
  NodeLogits<T> logits(const Chunk& chunk, const T* logits, bool all);

  /// No arc is known.
  void clear();
  /// log P(labels) (B) from the arcs; see Transducer::walk. Gradients are wanted once.
  template <class T>
  void walk(bool wants_gradients, double* found);

private:
  struct Node;

  template <class K>
  void fill(Chunk& chunk, Node& next, Index most, const double* scales, K keep) const;
  template <class K, class F>
  void chunks(Index most, const double* scales, K keep, F f) const;

  const Array<int64_t> lengths_, counts_, labels_;
  const Index batch_, blank_, frames_, width_, classes_;
  std::vector<Index> starts_, places_; // where the labels and the places of each sequence begin
  Index nodes_ = 0;
  Array<double> arcs_; // (2, places)
};

/// Logits (B, T, U + 1, V).
template <class T>
class TransducerLogits {
public:
  TransducerLogits(const py::object& logits, const py::object& lengths, const py::object& labels,
                   const py::object& counts, Index blank);

  /// log P(labels) (B), in float64.
  Array<double> forward();
  /// Once: the gradient of sum_b -scale_b log P_b; that through labels counts `label_weight` times.
  Array<T> backward(const py::object& scales, double label_weight);

private:
  const Array<T> logits_;
  Lattices lattices_;
};

/// The same of logits that are output(tanh(f + g)), of which only a few exist at a time: f (T, B, H) and g
/// (U + 1, B, H).
template <class T>
class TransducerJoint {
public:
  TransducerJoint(LinearLayer<T>& output, const py::object& f, const py::object& g,
                  const py::object& lengths, const py::object& labels, const py::object& counts,
                  Index blank);

  Array<double> forward();
  /// To f and g, and to the weight and the bias, None where `output` has none.
  py::tuple backward(const py::object& scales, double label_weight, bool bias);

private:
  struct Space;

  double work() const;
  Index chunk() const;
  JointNodes<T> join(const Lattices::Chunk& chunk, const Space& space, const Team& team) const;

  LinearLayer<T>& output_;
  const Array<T> f_, g_;
  Lattices lattices_;
  std::shared_ptr<const Snapshot<T>> weights_; // as forward saw them
};

/// tanh(f + g) (R, H) of rows: f and g are (R, H) or, for all rows, (1, H).
template <class T>
Array<T> joint_rows(const py::object& f, const py::object& g);

} // namespace rnncore
