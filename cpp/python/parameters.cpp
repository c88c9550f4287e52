#include "parameters.hpp"

namespace rnncore {
namespace {

const py::detail::PyArray_Proxy* fields(const py::object& array) {
  return py::detail::array_proxy(array.ptr());
}

bool same(const std::vector<Index>& then, const Py_ssize_t* now) {
  return std::equal(then.begin(), then.end(), now);
}

#ifndef Py_GIL_DISABLED
bool has_weak_references(PyObject* object) {
  const Py_ssize_t offset = Py_TYPE(object)->tp_weaklistoffset;
  return offset > 0 && *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + offset);
}

/// Whether nobody has this array but the dictionary of its module and the layer that asks. Views and
/// exported buffers are references as well. Memory that the array does not own may have another name.
bool is_ours_alone(const py::object& array) {
  return Py_REFCNT(array.ptr()) == 2 && !fields(array)->base &&
         (fields(array)->flags & py::detail::npy_api::NPY_ARRAY_OWNDATA_) &&
         !has_weak_references(array.ptr());
}
#endif

} // namespace

void KeptArrays::add(const std::string& name, const py::object& array, const void* data) {
  const auto* f = fields(array);
  arrays_.push_back({name,
                     array,
                     data,
                     f->descr,
                     {f->dimensions, f->dimensions + f->nd},
                     {f->strides, f->strides + f->nd}});
}

void KeptArrays::check() const {
  for (const Kept& kept : arrays_) {
    const auto* f = fields(kept.array);
    if (f->data != kept.data || f->descr != kept.dtype || f->nd != int(kept.extents.size()) ||
        !same(kept.extents, f->dimensions) || !same(kept.strides, f->strides))
      throw py::value_error(kept.name + " must stay the array that it was, of shape " +
                            text_of(kept.extents) +
                            "; it has been resized, reshaped or given another dtype in place: write values "
                            "into it (params[name] = values), or build the module anew");
  }
}

bool KeptArrays::held_by_others() const {
#ifdef Py_GIL_DISABLED // reference counts are split between threads
  return true;
#else
  return !owned_ || !std::all_of(arrays_.begin(), arrays_.end(),
                                 [](const Kept& kept) { return is_ours_alone(kept.array); });
#endif
}

bool KeptArrays::may_have_changed() {
  const bool others = held_by_others();
  return lent_.exchange(others, std::memory_order_relaxed) || others;
}

} // namespace rnncore
