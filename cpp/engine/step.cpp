#include "step.hpp"

#include <algorithm>
#include <utility>

#include "denormals.hpp"

namespace rnncore {

template <class T>
Step<T>::Step(const CellKernels<T>& cell, OwnSchedule schedule, const Forward<T>& call, Index batch,
              const MaskArrays<T>& masks)
    : cell_(cell), schedule_(std::move(schedule)), call_(call), batch_(batch), masks_(masks) {
  const Index pass = (cell.pass_bytes + 63) / 64 * 64;
  memory_ = Buffer(std::size_t(pass + cell.forward_work(cell.packing.cell, call)));
  call_.work = memory_.template as<char>() + pass;
  call_.packed = {};
}

template <class T>
void Step<T>::run(const T* x, T* y, T* h, T* c, const Snapshot<T>& weights) {
  call_.x.base = x;
  call_.y.base = y;
  call_.first.base = h;
  call_.running_c.base = c;
  const FlushDenormals flush;
  const Packed<T> packed = weights.packed();
  if (std::exchange(call_.packed, packed) != packed)
    cell_.make_pass(cell_.packing.cell, call_, memory_.template as<char>());
  cell_.run_pass(memory_.template as<char>());
  std::copy_n(y, batch_ * call_.shape.output, h);
}

template <class T>
std::unique_ptr<Step<T>> Steps<T>::take(Index batch, const MaskArrays<T>& masks) {
  std::unique_ptr<Step<T>> last(last_.exchange(nullptr, std::memory_order_acquire));
  if (last && last->serves(batch, masks)) return last;
  if (last) keep(std::move(last));
  return find(batch, masks);
}

template <class T>
void Steps<T>::give(std::unique_ptr<Step<T>> step) {
  std::unique_ptr<Step<T>> other(last_.exchange(step.release(), std::memory_order_acq_rel));
  if (other) keep(std::move(other));
}

template <class T>
std::unique_ptr<Step<T>> Steps<T>::find(Index batch, const MaskArrays<T>& masks) {
  const std::lock_guard lock(mutex_);
  const auto last = std::find_if(kept_.rbegin(), kept_.rend(),
                                 [&](const auto& step) { return step->serves(batch, masks); });
  if (last == kept_.rend()) return nullptr;
  auto taken = std::move(*last);
  kept_.erase(std::next(last).base());
  return taken;
}

template <class T>
void Steps<T>::keep(std::unique_ptr<Step<T>> step) {
  const std::lock_guard lock(mutex_);
  if (kept_.size() == 4) kept_.erase(kept_.begin());
  kept_.push_back(std::move(step));
}

template class Step<float>;
template class Step<double>;
template class Steps<float>;
template class Steps<double>;

} // namespace rnncore
