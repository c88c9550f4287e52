// Attention over NumPy arrays: queries of several steps and rows look at a memory.
#pragma once

#include "arrays.hpp"

namespace rnncore {

/// What a call looks at, and how. Arrays are kept alive.
template <class T>
class Memory {
public:
  /// keys (S, B, A), values (S, B, M), lengths (B); v (A) of additive scores, or None; window: 0 for none.
  Memory(const py::object& keys, const py::object& values, const py::object& lengths, const py::object& v,
         double window);

  /// Queries (T, R, A) of rows that look at sources (R), each for its first steps (R): (context, weights),
  /// each with a row for each query; the context's rows have `room` more columns, zero. `source`,
  /// `steps` and `centre` (T, R) may be None.
  py::tuple look(const py::object& query, const py::object& source, const py::object& steps,
                 const py::object& centre, Index room) const;

  /// (dquery, dcentre or None); adds to dkeys, dvalues and dv. Row r looks at source r.
  py::tuple look_back(const py::object& dcontext, const py::object& weights, const py::object& query,
                      const py::object& steps, const py::object& centre, const py::object& dkeys,
                      const py::object& dvalues, const py::object& dv) const;

  /// What all looks at it have in common, for this many rows.
  Look<T> common(Index rows) const;
  Index steps() const { return keys_.shape(0); }
  Index sources() const { return keys_.shape(1); }
  Index key_size() const { return keys_.shape(2); }
  Index value_size() const { return values_.shape(2); }
  bool additive() const { return !v_.is_none(); }

private:
  const Array<T> keys_, values_;
  const Array<int64_t> lengths_;
  const py::object v_;
  const T window_;
};

/// Gradients of additive scores' v, a row for each source, added up in order.
template <class T>
void add_rows_in_order(const T* rows, Index count, Index width, T* sum);

} // namespace rnncore
