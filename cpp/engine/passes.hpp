// A layer's passes over a batch: cut into parts, each a schedule of its own, and shared between threads.
#pragma once

#include <memory>
#include <vector>

#include "locks.hpp"
#include "step.hpp"
#include "walks.hpp"

namespace rnncore {

/// Columns of a row of x, and of one of cell states.
inline Index x_columns(const Shape& s) { return s.input + s.scalars + s.vectors * s.hidden; }
inline Index c_columns(const Shape& s) { return s.cells * s.hidden; }

/// Where sequences start anew, and from which states. P is the width of h.
template <class T>
struct Restarts {
  const bool* resets;             // (rows) or null
  const T *h, *c;                 // (D, P), (D, C) or null: zero
  T *dh = nullptr, *dc = nullptr; // (D, B, P), (D, B, C)  their gradients, added to by backward; or null
};

/// The arrays of one call. I is `x_columns`, C `c_columns`. D directions lie side by side in the columns of
/// y and c, and one after the other in the states. P is the width of h.
template <class T>
struct ForwardArrays {
  Grid grid;
  const int64_t* lengths; // (B) or null
  const T* x;             // (rows, I)
  T* y;                   // (rows, D * P)
  T *h, *running_c;       // (D, B, P), (D, B, C)  in: initial; out: final
  T* c;                   // (rows, D * C) or null: not wanted; not with a record, which keeps its own
  const Forest* forest;   // or null; then its rows are those of a batch of one step
  T* offer;               // (rows, H) or null: what its nodes offer to those that continue them
  MaskArrays<T> masks;
  Restarts<T> restarts;
  // (B) the rows of h and running_c that the sequences of one direction continue, each of them once, and
  // the others stay as they are; or null: a row for each sequence.
  const int32_t* states = nullptr;
};

template <class T>
struct BackwardArrays {
  const T* x;                       // as forward saw it
  T* y;                             // as forward left it
  T* c;                             // all cell states, or null: the record has them
  T *first_h, *first_c;             // (D, B, P), (D, B, C)
  const T* dy;                      // (rows, D * P) or null: zero
  T *dh, *dc;                       // as first_h and first_c  in: of the final states; out: of the initial
                                    // ones. Of a forest (rows, H), zero at first
  T* dx;                            // (rows, I) or null: not wanted
  T *offer, *d_offer;               // (rows, H), or null: of a forest; the gradients zero at first
  const Weights<T>* const* weights; // the gradients of each direction's transitions: added to. Or null
  MaskArrays<T> masks;
  Restarts<T> restarts;
};

/// The weights of each direction as they were at one moment.
template <class T>
using Pinned = std::vector<std::shared_ptr<const Snapshot<T>>>;

/// What one call leaves for its backward pass, apart from the arrays.
template <class T>
struct Record {
  std::vector<Part> parts; // all of the first direction, then all of the second
  Pinned<T> weights;
  bool replays = false; // the tape has the last piece of each part alone
  Buffer tape;
  Buffer c; // (rows, D * C)  cell states
};

template <class T>
class SteppedPasses;

template <class T>
class Passes {
public:
  /// `options`: null for those of the paper. `weights`: of each direction its transitions.
  Passes(const CellKernels<T>& cell, Shape shape, const CellOptions& options, bool plain,
         const std::vector<std::vector<Weights<const T>>>& weights);

  /// Fills `record` if it is given: with the gates of all steps or, if `steps` is not zero, with room for
  /// those of about so many, which backward then computes again piece by piece. `weights`: null for those
  /// of now.
  void forward(const ForwardArrays<T>& arrays, Record<T>* record, Index steps = 0,
               const Pinned<T>* weights = nullptr);
  /// Uses the record up, also where it is ended before its time: then it adds nothing to the gradients.
  void backward(const BackwardArrays<T>& arrays, Grid grid, Record<T>& record);

  Shape shape() const { return shape_; }
  Pinned<T> weights(bool transposed = false);
  /// Says that the weights may have changed.
  void look_again();
  /// Takes the weights as they are now for good.
  void freeze();

  /// EqualParts that a batch is cut into. In training they depend on sizes alone: the parts' weight
  /// gradients are added up one by one, and must be the same ones for any number of threads. Without them
  /// no sum goes across rows, and the parts are as many as the threads like.
  Index parts(Grid grid, bool training) const;

private:
  friend class SteppedPasses<T>;

  bool is_step(const ForwardArrays<T>& arrays) const;
  void step(const ForwardArrays<T>& arrays, const Snapshot<T>& weights);
  Index directions() const { return Index(weights_.size()); }
  double step_work(Index rows) const;
  Index least_rows() const;
  std::vector<Part> cut(const ForwardArrays<T>& arrays, Index parts) const;
  std::vector<Part> cut_forest(const Forest& forest) const;
  double node_work() const;
  Index most_nodes(Index parts) const;
  Index reserve(std::vector<Part>& parts, Index steps) const;
  T* tape_of(const Record<T>& record, const Part& part, Index wave) const;
  Call<T> call_of(Grid grid, const MaskArrays<T>& masks, const Restarts<T>& restarts,
                  const Part& part) const;
  Forward<T> forward_call(const ForwardArrays<T>& arrays, const Part& part,
                          const Snapshot<T>& weights) const;
  Backward<T> backward_call(const BackwardArrays<T>& arrays, Grid grid, const Record<T>& record,
                            const Part& part) const;
  template <class F>
  void share(const std::vector<Way>& ways, Index rows, Index time, Index bytes, F f) const;
  Forward<T> replay(const BackwardArrays<T>& arrays, Grid grid, const Record<T>& record,
                    const Part& part) const;
  void add_gradients(const BackwardArrays<T>& arrays, T* sums, Index parts, Index packed);
  void walk_back(const BackwardArrays<T>& arrays, Grid grid, const Record<T>& record, Walk walk,
                 T* gradients, const Team& team, void* work) const;
  Buffer take_spare(std::size_t bytes);
  void give_spare(Buffer buffer);

  const CellKernels<T>& cell_;
  const Shape shape_;
  const CellOptions options_;
  const bool plain_; // the options are the paper's
  const Sizes sizes_;
  std::vector<std::unique_ptr<WatchedWeights<T>>> weights_;
  Mutex adding_; // held while gradients are added to: calls share them
  Mutex mutex_;
  std::vector<Buffer> spare_; // of earlier calls, to be used again
  Steps<T> steps_;
};

} // namespace rnncore
