// A layer's passes wave by wave, driven from outside: what a wave reads may depend on the one before.
#pragma once

#include "layer.hpp"

namespace rnncore {

template <class T>
class SteppedPasses {
public:
  /// Over the arrays of one call, cut into `parts`; `record`: for backward.
  SteppedPasses(Passes<T>& passes, const ForwardArrays<T>& arrays, Index parts, bool record);

  /// The nodes of a part, the same for all layers of a batch.
  Schedule schedule(Index part) const { return parts_[part].schedule.view(); }
  Index count() const { return Index(parts_.size()); }

  /// Bytes of work space for one wave of any part, there or back.
  Index forward_work() const;
  Index backward_work() const;

  void forward(Index part, Index wave, void* work) const;

  /// From here on backward, over these arrays.
  void turn(const BackwardArrays<T>& arrays);
  /// Waves from the last to the first.
  void backward(Index part, Index wave, void* work) const;
  /// Adds what the parts have summed to the gradients that the arrays name.
  void add_gradients();

private:
  T* tape(Index part, Index wave) const;
  Forward<T> forward_call(Index part) const;
  Backward<T> backward_call(Index part) const;

  Passes<T>& passes_;
  ForwardArrays<T> arrays_;
  BackwardArrays<T> back_{};
  Record<T> record_;
  const std::vector<Part>& parts_;
  Buffer sums_; // of the parts' weight gradients
};

} // namespace rnncore
