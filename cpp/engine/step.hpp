// Single steps of some rows in one direction, on one thread: prepared once, run again and again.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "locks.hpp"
#include "memory.hpp"
#include "schedule.hpp"
#include "weights.hpp"

namespace rnncore {

/// What regularisers multiply by; null: nothing. Directions lie as in the arrays of a call.
template <class T>
struct MaskArrays {
  const T* state;                    // (D, B, P)
  const T *update, *keep_h, *keep_c; // (rows, D * H), or (D * H) for all rows
  bool same_for_all_rows;
  bool any() const { return state || update || keep_h || keep_c; }
  bool operator==(const MaskArrays&) const = default;
};

/// The arrays of a step.
template <class T>
struct StepArrays {
  Index batch;
  const T* x;            // (B, I)
  T* y;                  // (B, P)
  T *h, *c;              // (rows, P), (rows, H) or null  change in place
  const int32_t* states; // (B) the rows of h and c that are continued, or null: the first ones
};

template <class T>
class Step {
public:
  /// `call`: the step as it is taken for the first time, but for its schedule and arrays.
  Step(const CellKernels<T>& cell, const Forward<T>& call, const MaskArrays<T>& masks);
  Step(const Step&) = delete;

  /// Whether it takes the same masks; `is_for`: and as many rows as before, which then costs less.
  bool takes(const MaskArrays<T>& masks) const { return masks == masks_; }
  bool is_for(Index batch, const MaskArrays<T>& masks) const { return batch == batch_ && takes(masks); }
  void run(const StepArrays<T>& arrays, const Snapshot<T>& weights);

private:
  bool place(Index batch, const int32_t* states);

  const CellKernels<T>& cell_;
  OwnSchedule schedule_;
  Forward<T> call_;
  Index batch_ = 0;
  bool in_order_ = false; // the first rows of the states are continued
  const MaskArrays<T> masks_;
  Buffer memory_; // of the pass, and then its work space
};

/// The steps of a layer that nobody runs at the moment, a few of them.
template <class T>
class Steps {
public:
  Steps() = default;
  Steps(const Steps&) = delete;
  ~Steps() { delete last_.load(std::memory_order_acquire); }

  /// One that takes them, best one that is for so many rows; or null, for a few.
  std::unique_ptr<Step<T>> take(Index batch, const MaskArrays<T>& masks);
  void give(std::unique_ptr<Step<T>> step);

private:
  static constexpr std::size_t most_kept = 4;

  std::unique_ptr<Step<T>> find(Index batch, const MaskArrays<T>& masks);
  void keep(std::unique_ptr<Step<T>> step);

  // Where one step follows the other, this one goes out and in again: a lock would cost as much as the
  // product of a small layer.
  std::atomic<Step<T>*> last_{nullptr};
  Mutex mutex_;
  std::vector<std::unique_ptr<Step<T>>> kept_; // the others, the last one used last
};

} // namespace rnncore
