// The weights of one direction of a layer, packed for the kernels and kept until they change.
#pragma once

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "api.hpp"
#include "locks.hpp"
#include "memory.hpp"

namespace rnncore {

/// The weights as they were at one moment, in the kernels' order.
template <class T>
struct Snapshot {
  uint64_t fingerprint = 0;
  Buffer numbers, weights, transposed;

  Packed<T> packed() const { return {numbers.template as<T>(), weights.template as<void>()}; }
};

/// A thread under a hold looks at each layer's weights once and goes on with what it saw. A search would
/// read all of them again for every token.
class Hold {
public:
  /// Puts the calling thread under a hold, for as long as it lives.
  class Use {
  public:
    explicit Use(Hold& hold);
    Use(const Use&) = delete;
    ~Use();

  private:
    Hold* const outer_;
  };

  /// The one that the calling thread is under, or null.
  static Hold* current();

  std::shared_ptr<const void> find(uint64_t watch) const;
  void keep(uint64_t watch, std::shared_ptr<const void> snapshot);

private:
  mutable Mutex mutex_;
  std::vector<std::pair<uint64_t, std::shared_ptr<const void>>> seen_;
};

/// Weights that somebody else owns and may write to. The use after `look_again` takes their fingerprint,
/// which costs one read of them; only a changed one packs them anew. Other uses read nothing.
template <class T>
class WatchedWeights {
public:
  /// `weights`: of each transition.
  WatchedWeights(const Packing<T>& packing, Shape shape, std::vector<Weights<const T>> weights);

  /// The weights as they are now, or as the thread's hold has seen them, with the transposed ones that
  /// backward needs if asked for.
  std::shared_ptr<const Snapshot<T>> snapshot(bool transposed);

  /// Packs the weights as they are now and forgets where they came from: they will not change.
  void freeze();

  /// Says that the weights may have changed.
  void look_again() { unseen_.store(true, std::memory_order_release); }

private:
  std::shared_ptr<const Snapshot<T>> look(bool transposed);
  void pack(uint64_t now, bool transposed);
  uint64_t fingerprint() const;

  const uint64_t watch_; // unlike an address never given again
  const Packing<T>& packing_;
  const Shape shape_;
  std::vector<Weights<const T>> weights_;
  const Sizes sizes_;
  Mutex mutex_;
  std::shared_ptr<Snapshot<T>> current_;
  bool frozen_ = false;
  std::atomic<bool> unseen_{true}; // changes, if there were any
};

} // namespace rnncore
