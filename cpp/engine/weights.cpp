#include "weights.hpp"

#include <atomic>

#include "dispatch.hpp"

namespace rnncore {
namespace {

thread_local Hold* held_by = nullptr;

uint64_t next_watch() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed);
}

/// Whether nobody else holds it, and what others read of it was read before now. The count alone is loaded
/// without order; the end of a copy is ordered after the ends of those before it.
template <class T>
bool only_holder(const std::shared_ptr<T>& held) {
  if (held.use_count() != 1) return false;
  std::shared_ptr<T>(held).reset();
  return true;
}

} // namespace

Hold::Use::Use(Hold& hold) : outer_(std::exchange(held_by, &hold)) {}

Hold::Use::~Use() { held_by = outer_; }

Hold* Hold::current() { return held_by; }

std::shared_ptr<const void> Hold::find(uint64_t watch) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [seen, snapshot] : seen_)
    if (seen == watch) return snapshot;
  return nullptr;
}

void Hold::keep(uint64_t watch, std::shared_ptr<const void> snapshot) {
  const std::lock_guard lock(mutex_);
  for (auto& [seen, kept] : seen_)
    if (seen == watch) return kept.swap(snapshot);
  seen_.emplace_back(watch, std::move(snapshot));
}

template <class T>
WatchedWeights<T>::WatchedWeights(const Packing<T>& packing, Shape shape,
                                  std::vector<Weights<const T>> weights)
    : watch_(next_watch()), packing_(packing), shape_(shape), weights_(std::move(weights)),
      sizes_(packing.sizes(packing.cell, shape)) {}

template <class T>
uint64_t WatchedWeights<T>::fingerprint() const {
  const Index rows = packing_.gates * shape_.hidden, state = shape_.output ? shape_.output : shape_.hidden;
  Bytes blocks[6];
  uint64_t all = 0;
  for (const Weights<const T>& w : weights_) {
    Index count = 0;
    const auto add = [&](const T* data, Index size) {
      if (data) blocks[count++] = {data, std::size_t(size) * sizeof(T)};
    };
    add(w.input, rows * (&w == weights_.data() ? shape_.input : shape_.hidden));
    add(w.recurrent, sizes_.matrices * packing_.recurrent_gates * shape_.hidden * sizes_.recurrent_columns);
    add(w.input_bias, rows);
    add(w.recurrent_bias, packing_.recurrent_gates * shape_.hidden);
    add(w.units, packing_.units * shape_.hidden);
    add(w.projection, state * shape_.hidden);
    all = all * 0x9E3779B97F4A7C15u + kernels().fingerprint(blocks, count);
  }
  return all;
}

template <class T>
std::shared_ptr<const Snapshot<T>> WatchedWeights<T>::snapshot(bool transposed) {
  Hold* const hold = Hold::current();
  if (!hold) return look(transposed);
  auto seen = std::static_pointer_cast<const Snapshot<T>>(hold->find(watch_));
  if (seen && (seen->transposed.bytes() || !transposed)) return seen;
  seen = look(transposed);
  hold->keep(watch_, seen);
  return seen;
}

template <class T>
std::shared_ptr<const Snapshot<T>> WatchedWeights<T>::look(bool transposed) {
  const std::lock_guard lock(mutex_);
  if (frozen_) return current_;
  const bool unseen = unseen_.exchange(false, std::memory_order_acquire);
  try {
    const uint64_t now = unseen || !current_ ? fingerprint() : current_->fingerprint;
    const bool stale = !current_ || current_->fingerprint != now;
    if (stale || (transposed && !current_->transposed.bytes())) pack(now, transposed);
  } catch (...) { // no memory
    look_again();
    throw;
  }
  return current_;
}

template <class T>
void WatchedWeights<T>::freeze() {
  look(false);
  const std::lock_guard lock(mutex_);
  frozen_ = true;
  weights_.clear();
}

template <class T>
void WatchedWeights<T>::pack(uint64_t now, bool transposed) {
  // A snapshot that somebody still uses is left alone; otherwise its memory serves again.
  auto next = only_holder(current_) ? std::move(current_) : std::make_shared<Snapshot<T>>();
  next->fingerprint = now;
  next->numbers.reserve(sizes_.numbers * sizeof(T));
  next->weights.reserve(sizes_.weight_bytes);
  packing_.pack(packing_.cell, shape_, weights_.data(), next->numbers.template as<T>(),
                next->weights.template as<void>());
  if (transposed) {
    next->transposed.reserve(sizes_.transposed_bytes);
    packing_.pack_transposed(packing_.cell, shape_, weights_.data(), next->transposed.template as<void>());
  } else {
    next->transposed = Buffer();
  }
  current_ = std::move(next);
}

template class WatchedWeights<float>;
template class WatchedWeights<double>;

} // namespace rnncore
