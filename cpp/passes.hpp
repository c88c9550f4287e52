// A layer's passes over a batch: cut into parts, each a schedule of its own, and shared between threads.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "memory.hpp"
#include "schedule.hpp"
#include "weights.hpp"

namespace rnncore {

/// The arrays of one call. D directions lie side by side in the columns of y and c, and one after the
/// other in the states.
template <class T>
struct ForwardArrays {
  Grid grid;
  const int64_t* lengths; // (B) or null
  const T* x;             // (rows, I)
  T* y;                   // (rows, D * H)
  T *h, *running_c;       // (D, B, H)  in: initial; out: final
  T* c;                   // (rows, D * H) or null: not wanted; not with a record, which keeps its own
};

template <class T>
struct BackwardArrays {
  const T *x, *y;                  // as forward saw and left them
  const T *first_h, *first_c;      // (D, B, H)
  const T* dy;                     // (rows, D * H) or null: zero
  T *dh, *dc;                      // (D, B, H)  in: of the final states; out: of the initial ones
  T* dx;                           // (rows, I) or null: not wanted
  std::vector<Weights<T>> weights; // a group for each direction: added to
};

/// Some sequences in one direction.
struct Part {
  Index direction;
  SequenceSchedule schedule;
  Index tape; // where its gates begin
};

/// What one call leaves for its way back, apart from the arrays.
template <class T>
struct Record {
  std::vector<Part> parts; // all of the first direction, then all of the second
  std::vector<std::shared_ptr<const Snapshot<T>>> weights; // of each direction
  Buffer tape;
  Buffer c; // (rows, D * H)  cell states
};

template <class T>
class Passes {
public:
  Passes(const Cell<T>& cell, Shape shape, const std::vector<Weights<const T>>& weights);

  /// Fills `record` if it is given.
  void forward(const ForwardArrays<T>& arrays, Record<T>* record);
  /// Uses the record up.
  void backward(const BackwardArrays<T>& arrays, Grid grid, Record<T>& record);

private:
  Index directions() const { return Index(weights_.size()); }
  double step_work(Index rows) const;
  Index least_rows() const;
  std::vector<Part> cut(const ForwardArrays<T>& arrays, bool training) const;
  template <class F>
  void share(Index tasks, Index rows, Index time, Index bytes, F f) const;
  void forward_part(const ForwardArrays<T>& arrays, const Part& part, const Snapshot<T>& weights, T* tape,
                    const Team& team, void* work) const;
  void backward_part(const BackwardArrays<T>& arrays, Grid grid, const Record<T>& record, Index part,
                     T* gradients, const Team& team, void* work) const;
  Buffer take_spare(std::size_t bytes);
  void give_spare(Buffer buffer);

  const Cell<T>& cell_;
  const Shape shape_;
  const Sizes sizes_;
  std::vector<std::unique_ptr<WatchedWeights<T>>> weights_;
  std::mutex adding_; // held while gradients are added to: calls share them
  std::mutex mutex_;
  std::vector<Buffer> spare_; // of earlier calls, to be used again
};

} // namespace rnncore
