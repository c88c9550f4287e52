// How a schedule is walked: in chunks of waves whose gates fit the cache.
#pragma once

#include "layout.hpp"

namespace rnncore::RNNCORE_LEVEL {

// Gates of a chunk: about as much as the core's own cache holds, but of enough rows to pay for reading and
// writing every weight's gradient; of fewer where a row of what is multiplied is longer than its gates.
constexpr Index chunk_bytes = 512 * 1024, least_chunk = 192, least_paired = 32;

/// Consecutive waves that are worked on together, and their nodes.
struct Chunk {
  Index wave, end, node, rows;
};

/// Chunks are cut where this many nodes lie before them, or a multiple of it.
template <class T>
Index chunk_nodes(const Layout<T>& at) {
  if (at.pairs()) return max(least_paired, chunk_bytes / (at.recurrent_columns() * Index(sizeof(T))));
  return max(least_chunk, chunk_bytes / (at.node() * at.shape.depth * Index(sizeof(T))));
}

/// The chunk that `wave` is in.
template <class T>
Chunk chunk_at(const Layout<T>& at, const Schedule& s, Index wave) {
  if (s.stepped) return {wave, wave + 1, s.begin[wave], s.begin[wave + 1] - s.begin[wave]};
  const Index nodes = chunk_nodes(at), number = s.begin[wave] / nodes;
  Index begin = wave, end = wave + 1;
  while (begin > 0 && s.begin[begin - 1] / nodes == number) --begin;
  while (end < s.waves && s.begin[end] / nodes == number) ++end;
  return {begin, end, s.begin[begin], s.begin[end] - s.begin[begin]};
}

/// The most nodes that any chunk has. Waves of sequences shrink; where each is a chunk, this is asked for
/// at every one of them.
template <class T>
Index chunk_rows(const Layout<T>& at, const Schedule& s) {
  if (s.stepped) return s.waves ? s.begin[1] - s.begin[0] : 0;
  Index largest = 0;
  for (Index w = 0; w < s.waves; ++w) largest = max(largest, s.begin[w + 1] - s.begin[w]);
  return min(s.nodes, chunk_nodes(at) + largest);
}

/// The most predecessors that the nodes of a chunk have, as pointers.
template <class T>
Index chunk_edges(const Layout<T>& at, const Schedule& s) {
  if (!s.edges) return chunk_rows(at, s) * at.shape.arity;
  Index most = 0;
  for (Index w = 0; w < s.waves;) {
    const Chunk chunk = chunk_at(at, s, w);
    most = max(most, Index(s.edges[chunk.node + chunk.rows] - s.edges[chunk.node]));
    w = chunk.end;
  }
  return most;
}

/// What one thread computes: whole panels of hidden units and, of the same columns, of gates; and of h,
/// the same again unless it is projected. What it computes of a gradient it needs itself in the next step.
template <class T>
struct Columns {
  Share units, panels, states;

  Columns(const Layout<T>& at, const Team& team)
      : units(team, at.units.count()), panels(units), states(team, at.states.count()) {
    const auto vector = [&](Index q) {
      return q < at.units.count() ? at.units.first(q) : at.units.vectors.n;
    };
    panels.begin = at.hidden.from(vector(units.begin));
    panels.end = at.hidden.from(vector(units.end));
  }
};

/// Where the nodes of some waves are remembered.
template <class T>
struct TapeView {
  T* base;
  Index nodes, first; // how many, and which one is the first

  /// Row `node` of a region with rows of `width` numbers, `offset` numbers of each node before it.
  RNNCORE_INLINE T* at(Index offset, Index width, Index node) const {
    return base + offset * nodes + (node - first) * width;
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
