// Attention over NumPy arrays: queries of several steps and rows attend to a memory.
#pragma once

#include "arrays.hpp"

namespace rnncore {

/// What queries attend to, and how. Arrays are kept alive.
template <class T>
class Memory {
public:
  /// keys (S, B, A), values (S, B, M), lengths (B); v (A) of additive scores, or None; window: 0 for none;
  /// causal: no step sees later ones, with neither v nor centres.
  Memory(const py::object& keys, const py::object& values, const py::object& lengths, const py::object& v,
         double window, bool causal);

  /// Queries (T, R, A) of rows that attend to sources (R), each for its first steps (R): (context,
  /// weights), each with a row for each query; the context's rows have `room` more columns, zero. `source`,
  /// `steps` and `centre` (T, R) may be None.
  py::tuple attend(const py::object& query, const py::object& source, const py::object& steps,
                   const py::object& centre, Index room) const;

  /// (dquery, dcentre or None); adds to dkeys, dvalues and dv. Row r attends to source r.
  py::tuple attend_backward(const py::object& dcontext, const py::object& weights, const py::object& query,
                            const py::object& steps, const py::object& centre, const py::object& dkeys,
                            const py::object& dvalues, const py::object& dv) const;

  /// What all calls have in common, for this many rows.
  AttentionForward<T> common(Index rows) const;
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
  const bool causal_;
};

/// Contexts and weights of all rows at their first `steps` steps, or each at its own `until`; what the
/// context's rows have beyond them is zero. On as many threads as that is worth.
template <class T>
void attend_rows(const AttentionForward<T>& call, Index steps, const int64_t* until);

/// Gradients of additive scores' v, a row for each source, added up in order.
template <class T>
void add_rows_in_order(const T* rows, Index count, Index width, T* sum);

} // namespace rnncore
