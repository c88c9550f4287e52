#include "weights.hpp"

#include <atomic>

#include "dispatch.hpp"

namespace rnncore {

template <class T>
WatchedWeights<T>::WatchedWeights(const Packing<T>& packing, Shape shape, Weights<const T> weights)
    : packing_(packing), shape_(shape), weights_(weights), sizes_(packing.sizes(shape)) {}

template <class T>
uint64_t WatchedWeights<T>::fingerprint() const {
  const std::size_t rows = std::size_t(packing_.gates * shape_.hidden) * sizeof(T);
  Bytes blocks[4];
  Index count = 0;
  const auto add = [&](const T* data, std::size_t bytes) {
    if (data) blocks[count++] = {data, bytes};
  };
  add(weights_.input, rows * shape_.input);
  add(weights_.recurrent, rows * shape_.hidden);
  add(weights_.input_bias, rows);
  add(weights_.recurrent_bias, rows);
  return kernels().fingerprint(blocks, count);
}

template <class T>
std::shared_ptr<const Snapshot<T>> WatchedWeights<T>::snapshot(bool transposed) {
  const std::lock_guard lock(mutex_);
  const uint64_t now = fingerprint();
  const bool stale = !current_ || current_->fingerprint != now;
  const bool packs_transposed = transposed && (stale || !current_->transposed.bytes());
  if (!stale && !packs_transposed) return current_;

  // A snapshot that somebody still uses is left alone; otherwise its memory serves again.
  const bool mine = current_ && current_.use_count() == 1;
  std::atomic_thread_fence(std::memory_order_acquire); // after the last reader has let go
  auto next = mine ? std::move(current_) : std::make_shared<Snapshot<T>>();
  next->fingerprint = now;
  next->packed.reserve(sizes_.packed * sizeof(T));
  packing_.pack(shape_, weights_, next->packed.template as<T>());
  if (transposed) {
    next->transposed.reserve(sizes_.packed_transposed * sizeof(T));
    packing_.pack_transposed(shape_, weights_, next->transposed.template as<T>());
  } else {
    next->transposed = Buffer();
  }
  current_ = std::move(next);
  return current_;
}

template class WatchedWeights<float>;
template class WatchedWeights<double>;

} // namespace rnncore
