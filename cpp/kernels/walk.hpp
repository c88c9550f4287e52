// How a schedule is walked: in chunks of waves whose gates fit the cache.
#pragma once

#include "layout.hpp"

namespace rnncore::RNNCORE_LEVEL {

// Gates of a chunk: about as much as the core's own cache holds, but of enough rows to pay for reading and
// writing every weight's gradient.
constexpr Index chunk_bytes = 512 * 1024, least_chunk = 192;

/// Consecutive waves that are worked on together, and their nodes.
struct Chunk {
  Index wave, end, node, rows;
};

/// Chunks are cut where this many nodes lie before them, or a multiple of it.
template <class C, class T>
Index chunk_nodes(const Layout<C, T>& at) {
  return max(least_chunk, chunk_bytes / (at.node() * Index(sizeof(T))));
}

/// The chunk that `wave` is in.
template <class C, class T>
Chunk chunk_at(const Layout<C, T>& at, const Schedule& s, Index wave) {
  const Index nodes = chunk_nodes(at), number = s.begin[wave] / nodes;
  Index begin = wave, end = wave + 1;
  while (begin > 0 && s.begin[begin - 1] / nodes == number) --begin;
  while (end < s.waves && s.begin[end] / nodes == number) ++end;
  return {begin, end, s.begin[begin], s.begin[end] - s.begin[begin]};
}

/// The most nodes that any chunk has.
template <class C, class T>
Index chunk_rows(const Layout<C, T>& at, const Schedule& s) {
  Index largest = 0;
  for (Index w = 0; w < s.waves; ++w) largest = max(largest, s.begin[w + 1] - s.begin[w]);
  return min(s.nodes, chunk_nodes(at) + largest);
}

/// The hidden units of one thread: whole panels of states and, of the same columns, of gates. What a
/// thread computes of a gradient it needs itself in the next step.
template <class C, class T>
struct Columns {
  Share states;
  Share panels;

  Columns(const Layout<C, T>& at, const Team& team) : states(team, at.states.count()), panels(states) {
    const auto vector = [&](Index q) {
      return q < at.states.count() ? at.states.first(q) : at.states.vectors.n;
    };
    panels.begin = at.hidden.from(vector(states.begin));
    panels.end = at.hidden.from(vector(states.end));
  }
};

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
