// The weights of one direction of a layer, packed for the kernels and kept until they change.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "api.hpp"
#include "memory.hpp"

namespace rnncore {

/// The weights as they were at one moment, in the kernels' order.
template <class T>
struct Snapshot {
  uint64_t fingerprint = 0;
  Buffer packed, transposed;
};

/// Watches weights that somebody else owns and may write to at any time. Every use takes their
/// fingerprint, which costs one read of them; only a changed one packs them anew.
template <class T>
class WatchedWeights {
public:
  /// `weights`: of each transition.
  WatchedWeights(const Packing<T>& packing, Shape shape, std::vector<Weights<const T>> weights);

  /// The weights as they are now, with the transposed ones that backward needs if asked for.
  std::shared_ptr<const Snapshot<T>> snapshot(bool transposed);

private:
  uint64_t fingerprint() const;

  const Packing<T>& packing_;
  const Shape shape_;
  const std::vector<Weights<const T>> weights_;
  const Sizes sizes_;
  std::mutex mutex_;
  std::shared_ptr<Snapshot<T>> current_;
};

} // namespace rnncore
