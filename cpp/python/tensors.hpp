// A recurrent layer over other libraries' tensors: what `Layer` does over arrays, for small steps at less
// cost.
#pragma once

#include "layer.hpp"

namespace rnncore {

/// What backward needs of one call of forward beside its tensors, which are given again.
template <class T>
struct TensorTape {
  Grid grid;
  Index rows;
  Buffer first; // (D, B, P) and (D, B, C): the initial h and c
  Record<T> record;
};

/// (y, h_n, c_n or None, tape or None). `batch_sizes`: None, or of a packed x how many sequences have each
/// step. x (T, B, I), (B, T, I) or, packed, (rows, I); h0 (D, B, P) and c0 (D, B, C), or None for zero. All
/// are capsules of DLPack.
template <class T>
py::tuple forward_tensors(Layer<T>& layer, const py::object& batch_sizes, const py::object& x,
                          const py::object& h0, const py::object& c0, bool record);

/// The gradients of x, h0, c0 and the parameters, in this order, None for those that are not wanted. x and
/// y as they were; `upstream`: the gradients of y, h_n and c_n, each of them or None for zero. A tape
/// serves once.
template <class T>
py::list backward_tensors(Layer<T>& layer, TensorTape<T>& tape, const py::object& x, const py::object& y,
                          const py::tuple& upstream, const ParameterGroups& parameters,
                          const std::vector<bool>& wanted);

} // namespace rnncore
