#include "step.hpp"

#include <algorithm>
#include <utility>

#include "denormals.hpp"

namespace rnncore {

template <class T>
Step<T>::Step(const CellKernels<T>& cell, const Forward<T>& call, const MaskArrays<T>& masks)
    : cell_(cell), call_(call), masks_(masks) {}

/// Makes the schedule one of these rows. Returns whether the pass has to be made anew.
template <class T>
bool Step<T>::place(Index batch, const int32_t* states) {
  const bool resized = batch != batch_, in_order = !states;
  if (!resized && in_order && in_order_) return false;
  batch_ = 0; // until there is memory
  schedule_.become_step(batch, states);
  if (resized) {
    call_.schedule = schedule_.view();
    call_.wave = 0;
    call_.end = call_.schedule.waves;
    call_.work = nullptr;
    const Index pass = (cell_.pass_bytes + 63) / 64 * 64;
    const Index work = cell_.forward_work(cell_.packing.cell, call_);
    call_.work = static_cast<char*>(memory_.reserve(std::size_t(pass + work))) + pass;
  }
  batch_ = batch;
  in_order_ = in_order;
  return resized;
}

template <class T>
void Step<T>::run(const StepArrays<T>& a, const Snapshot<T>& weights) {
  call_.x.base = a.x;
  call_.y.base = a.y;
  call_.first.base = a.h;
  call_.running_c.base = a.c;
  const bool placed = place(a.batch, a.states);
  const FlushDenormals flush;
  const Packed<T> packed = weights.packed();
  if (std::exchange(call_.packed, packed) != packed || placed)
    cell_.make_pass(cell_.packing.cell, call_, memory_.template as<char>());
  cell_.run_pass(memory_.template as<char>());
  const Index width = call_.shape.output;
  if (!a.states)
    std::copy_n(a.y, a.batch * width, a.h);
  else
    for (Index b = 0; b < a.batch; ++b) std::copy_n(a.y + b * width, width, a.h + a.states[b] * width);
}

template <class T>
std::unique_ptr<Step<T>> Steps<T>::take(Index batch, const MaskArrays<T>& masks) {
  std::unique_ptr<Step<T>> last(last_.exchange(nullptr, std::memory_order_acquire));
  if (last && last->is_for(batch, masks)) return last;
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
  const auto fits = [&](const auto& step) { return step->is_for(batch, masks); };
  auto found = std::find_if(kept_.begin(), kept_.end(), fits);
  // Where the number of rows changes all the time, the step that was used longest ago becomes this one.
  if (found == kept_.end() && kept_.size() == most_kept)
    found = std::find_if(kept_.begin(), kept_.end(), [&](const auto& step) { return step->takes(masks); });
  if (found == kept_.end()) return nullptr;
  auto taken = std::move(*found);
  kept_.erase(found);
  return taken;
}

template <class T>
void Steps<T>::keep(std::unique_ptr<Step<T>> step) {
  const std::lock_guard lock(mutex_);
  if (kept_.size() == most_kept) kept_.erase(kept_.begin());
  kept_.push_back(std::move(step));
}

template class Step<float>;
template class Step<double>;
template class Steps<float>;
template class Steps<double>;

} // namespace rnncore
