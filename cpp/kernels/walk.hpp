// How a schedule is walked: in chunks of waves whose gates fit the cache.
#pragma once

#include "layout.hpp"

namespace rnncore::RNNCORE_LEVEL {

constexpr Index chunk_bytes = 384 * 1024;

/// Consecutive waves that are worked on together, and their nodes.
struct Chunk {
  Index wave, waves_end, node, rows;
};

template <class C, class T>
Index chunk_target(const Layout<C, T>& at) {
  return max(1, chunk_bytes / (at.node() * Index(sizeof(T))));
}

/// The chunk that starts at `wave`: as many waves as fit, at least one.
template <class C, class T>
Chunk chunk_from(const Layout<C, T>& at, const Schedule& s, Index wave) {
  const Index node = s.begin[wave];
  Index end = wave + 1;
  while (end < s.waves && s.begin[end + 1] - node <= chunk_target(at)) ++end;
  return {wave, end, node, s.begin[end] - node};
}

inline Index largest_wave(const Schedule& s) {
  Index most = 0;
  for (Index w = 0; w < s.waves; ++w) most = max(most, s.begin[w + 1] - s.begin[w]);
  return most;
}

template <class C, class T>
Index chunk_rows(const Layout<C, T>& at, const Schedule& s) {
  return min(s.nodes, max(chunk_target(at), largest_wave(s)));
}

/// Hands out pieces of the work space; with none given it only measures.
class Arena {
public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <class U>
  U* take(Index n) {
    U* piece = base_ ? reinterpret_cast<U*>(base_ + used_) : nullptr;
    used_ += ceil_div(n * Index(sizeof(U)), 64) * 64;
    return piece;
  }
  Index used() const { return used_; }

private:
  char* base_;
  Index used_ = 0;
};

template <class T>
T* row_of(Rows<T> rows, Index row) {
  return rows.base ? rows.base + row * rows.stride : nullptr;
}

/// The row a node continues: an earlier one, or an initial one.
template <class T, class U>
const T* previous(Rows<U> rows, Rows<const T> first, Index prev) {
  return prev >= 0 ? row_of(rows, prev) : row_of(first, ~prev);
}

} // namespace rnncore::RNNCORE_LEVEL
