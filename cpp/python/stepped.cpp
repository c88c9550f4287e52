#include "stepped.hpp"

#include <algorithm>

namespace rnncore {
namespace {

Index rounded(Index n) { return (n + 15) / 16 * 16; }

} // namespace

template <class T>
SteppedPasses<T>::SteppedPasses(Passes<T>& passes, const ForwardArrays<T>& arrays, Index parts, bool record)
    : passes_(passes), arrays_(arrays), parts_(record_.parts) {
  record_.parts = passes_.cut(arrays, parts);
  record_.weights.push_back(passes_.weights_.front()->snapshot(record));
  if (!record) return;
  record_.tape = passes_.take_spare(std::size_t(passes_.reserve(record_.parts, 0)) * sizeof(T));
  if (!passes_.cell_.has_cell_state) return;
  const Grid& grid = arrays.grid;
  const Index numbers = grid.time * grid.batch * c_columns(passes_.shape_);
  record_.c = passes_.take_spare(std::size_t(numbers) * sizeof(T));
  arrays_.c = record_.c.template as<T>();
}

template <class T>
T* SteppedPasses<T>::tape(Index part, Index wave) const {
  const Part& p = parts_[part];
  return record_.tape.template as<T>() + p.tape + p.schedule.view().begin[wave] * passes_.sizes_.tape;
}

template <class T>
Forward<T> SteppedPasses<T>::forward_call(Index part) const {
  Forward<T> call = passes_.forward_call(arrays_, parts_[part], *record_.weights.front());
  call.schedule.stepped = true;
  return call;
}

template <class T>
Backward<T> SteppedPasses<T>::backward_call(Index part) const {
  Backward<T> call = passes_.backward_call(back_, arrays_.grid, record_, parts_[part]);
  call.schedule.stepped = true;
  return call;
}

template <class T>
Index SteppedPasses<T>::forward_work() const {
  Index bytes = 0;
  for (Index part = 0; part < count(); ++part)
    bytes = std::max(bytes, passes_.cell_.forward_work(passes_.cell_.packing.cell, forward_call(part)));
  return bytes;
}

template <class T>
Index SteppedPasses<T>::backward_work() const {
  Index bytes = 0;
  for (Index part = 0; part < count(); ++part)
    bytes = std::max(bytes, passes_.cell_.backward_work(passes_.cell_.packing.cell, backward_call(part)));
  return bytes;
}

template <class T>
void SteppedPasses<T>::forward(Index part, Index wave, void* work) const {
  Forward<T> call = forward_call(part);
  call.wave = wave;
  call.end = wave + 1;
  call.work = work;
  if (record_.tape.bytes()) call.tape = tape(part, wave);
  passes_.cell_.forward(passes_.cell_.packing.cell, call, alone);
}

template <class T>
void SteppedPasses<T>::turn(const BackwardArrays<T>& arrays) {
  back_ = arrays;
  const Index packed = rounded(passes_.sizes_.gradients);
  sums_ = passes_.take_spare(std::size_t(packed * count()) * sizeof(T));
  for (Index part = 0; part < count(); ++part) // a part without waves is never gone through
    if (schedule(part).waves == 0) std::fill_n(sums_.template as<T>() + part * packed, packed, T(0));
}

template <class T>
void SteppedPasses<T>::backward(Index part, Index wave, void* work) const {
  Backward<T> call = backward_call(part);
  call.wave = wave;
  call.end = wave + 1;
  call.work = work;
  call.tape = tape(part, wave);
  call.gradients = sums_.template as<T>() + part * rounded(passes_.sizes_.gradients);
  passes_.cell_.backward(passes_.cell_.packing.cell, call, alone);
}

template <class T>
void SteppedPasses<T>::add_gradients() {
  const Index packed = rounded(passes_.sizes_.gradients);
  const std::lock_guard lock(passes_.adding_);
  on_team(1, [&](const Team& team) {
    passes_.cell_.add_gradients(passes_.cell_.packing.cell, passes_.shape_, sums_.template as<T>(), count(),
                                packed, back_.weights[0], team);
  });
  passes_.give_spare(std::move(sums_));
  passes_.give_spare(std::move(record_.tape));
  passes_.give_spare(std::move(record_.c));
}

template class SteppedPasses<float>;
template class SteppedPasses<double>;

} // namespace rnncore
