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

template <class T>
class Step {
public:
  /// `call`: the step as it is taken for the first time.
  Step(const CellKernels<T>& cell, OwnSchedule schedule, const Forward<T>& call, Index batch,
       const MaskArrays<T>& masks);
  Step(const Step&) = delete;

  bool serves(Index batch, const MaskArrays<T>& masks) const { return batch == batch_ && masks == masks_; }
  /// x (B, I) to y (B, P); h (B, P) and c (B, H), null if there is none, change in place.
  void run(const T* x, T* y, T* h, T* c, const Snapshot<T>& weights);

private:
  const CellKernels<T>& cell_;
  const OwnSchedule schedule_;
  Forward<T> call_;
  const Index batch_;
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

  /// One that serves, or null.
  std::unique_ptr<Step<T>> take(Index batch, const MaskArrays<T>& masks);
  void give(std::unique_ptr<Step<T>> step);

private:
  std::unique_ptr<Step<T>> find(Index batch, const MaskArrays<T>& masks);
  void keep(std::unique_ptr<Step<T>> step);

  // Where one step follows the other, this one goes out and in again: a lock would cost as much as the
  // product of a small layer.
  std::atomic<Step<T>*> last_{nullptr};
  Mutex mutex_;
  std::vector<std::unique_ptr<Step<T>>> kept_; // the others, the last one used last
};

} // namespace rnncore
