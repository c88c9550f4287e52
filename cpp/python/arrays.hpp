// NumPy arrays as the kernels want them. Python has checked the arguments and named what is wrong with
// them; what is checked here only keeps a mistake of ours from reading past an array.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "../engine/api.hpp"
#include "../engine/memory.hpp"
#include "gil.hpp"

namespace rnncore {

namespace py = pybind11;

/// What the kernels take: contiguous, aligned, and in the byte order of this machine. pybind11's own check
/// does not ask for alignment, and its conversions (`ensure`) return null where there is no memory.
template <class T>
class Array : public py::array_t<T, py::array::c_style> {
  using Base = py::array_t<T, py::array::c_style>;

public:
  using Base::Base;
  static bool check_(py::handle object) {
    using numpy = py::detail::npy_api;
    constexpr int flags = numpy::NPY_ARRAY_C_CONTIGUOUS_ | numpy::NPY_ARRAY_ALIGNED_;
    if (!numpy::get().PyArray_Check_(object.ptr())) return false;
    const auto* const array = py::detail::array_proxy(object.ptr());
    if ((array->flags & flags) != flags) return false;
    // NumPy has one object for each of its own types: most arrays need no comparison of what it says.
    static const PyObject* const own = py::dtype::of<T>().release().ptr();
    return array->descr == own || Base::check_(object);
  }
  static Array ensure(py::handle) = delete;
};

/// The array itself if it lies as the kernels want it, else a copy that does; NumPy's own error if there is
/// no memory for it.
template <class T>
Array<T> contiguous(const py::object& object) {
  using numpy = py::detail::npy_api;
  if (Array<T>::check_(object)) return py::reinterpret_borrow<Array<T>>(object);
  if (!py::array_t<T>::check_(object)) throw py::type_error("an array of another dtype than the layer's");
  constexpr int flags =
      numpy::NPY_ARRAY_ENSUREARRAY_ | numpy::NPY_ARRAY_C_CONTIGUOUS_ | numpy::NPY_ARRAY_ALIGNED_;
  PyObject* copy =
      numpy::get().PyArray_FromAny_(object.ptr(), py::dtype::of<T>().release().ptr(), 0, 0, flags, nullptr);
  if (!copy) throw py::error_already_set();
  return py::reinterpret_steal<Array<T>>(copy);
}

/// No array, to be given one later: the constructor without arguments would make an empty one.
template <class T>
Array<T> no_array() {
  return py::reinterpret_steal<Array<T>>(py::handle());
}

using Extents = std::initializer_list<Index>;

/// As Python writes a shape.
inline std::string text_of(const std::vector<Index>& shape) {
  std::string text;
  for (const Index n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "(" + text + (shape.size() == 1 ? ",)" : ")");
}

template <class T>
Array<T> of_shape(const char* name, const py::object& object, const Index* begin, const Index* end) {
  Array<T> array = contiguous<T>(object);
  if (!std::equal(begin, end, array.shape(), array.shape() + array.ndim()))
    throw py::value_error(std::string(name) + " must have shape " + text_of({begin, end}) + ", got " +
                          text_of({array.shape(), array.shape() + array.ndim()}));
  return array;
}

template <class T>
Array<T> of_shape(const char* name, const py::object& object, Extents shape) {
  return of_shape<T>(name, object, shape.begin(), shape.end());
}

/// Schedules number rows in 32 bits.
inline void check_rows(const char* name, Index rows) {
  if (rows > std::numeric_limits<int32_t>::max())
    throw py::value_error(std::string(name) + " must have at most " +
                          std::to_string(std::numeric_limits<int32_t>::max()) + " rows, got " +
                          std::to_string(rows));
}

/// The input x of so many axes, the last of them `width` long: all others count rows.
template <class T>
Array<T> rows_of(const py::object& object, Index axes, Index width) {
  if (!py::array_t<T>::check_(object)) return contiguous<T>(object);
  const auto x = py::reinterpret_borrow<py::array>(object);
  if (x.ndim() != axes || x.shape(axes - 1) != width) throw py::value_error("x: unexpected shape");
  Index rows = 1; // of an empty array those of its sequences, or its steps
  for (Index axis = 0; axis + 1 < axes; ++axis) rows *= std::max<Index>(1, x.shape(axis));
  check_rows("x", rows); // before anything is copied
  return contiguous<T>(object);
}

/// Arrays of this size and more have memory of our own, which serves again: fresh from the system it would
/// be cleared page by page.
constexpr std::size_t large = 256 << 10;

inline BufferPool& large_memory() {
  static BufferPool* const pool = new BufferPool; // never destroyed: arrays may outlive the statics
  return *pool;
}
inline Buffer take_memory(std::size_t bytes) {
  return bytes >= large ? large_memory().take(bytes) : Buffer(bytes);
}
inline void give_memory(Buffer buffer) {
  if (buffer.bytes() >= large) large_memory().give(std::move(buffer));
}

template <class T>
Array<T> new_large_array(const Index* begin, const Index* end, std::size_t bytes) {
  auto buffer = std::make_unique<Buffer>(take_memory(bytes));
  T* data = buffer->as<T>();
  const py::capsule owner(buffer.release(), [](void* pointer) {
    const std::unique_ptr<Buffer> buffer(static_cast<Buffer*>(pointer));
    give_memory(std::move(*buffer));
  });
  return Array<T>(std::vector<Index>(begin, end), data, owner);
}

/// A new array, not filled. Small ones straight from NumPy: pybind11's own way allocates four vectors
/// first, which a call of one step would notice.
template <class T>
Array<T> new_array(const Index* begin, const Index* end) {
  Index bytes = Index(sizeof(T));
  bool fits = true;
  for (const Index* extent = begin; extent < end; ++extent) {
    fits = fits && (*extent == 0 || bytes <= std::numeric_limits<Index>::max() / *extent);
    bytes = fits ? bytes * *extent : 0;
  }
  if (!fits) throw std::bad_alloc();
  if (std::size_t(bytes) >= large) return new_large_array<T>(begin, end, std::size_t(bytes));
  const auto& numpy = py::detail::npy_api::get();
  Py_intptr_t extents[64]; // the most axes that NumPy has
  std::copy(begin, end, extents);
  PyObject* array = numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, py::dtype::of<T>().release().ptr(),
                                                int(end - begin), extents, nullptr, nullptr, 0, nullptr);
  if (!array) throw py::error_already_set();
  return py::reinterpret_steal<Array<T>>(array);
}

template <class T>
Array<T> new_array(Extents shape) {
  return new_array<T>(shape.begin(), shape.end());
}

/// Where results of this shape go: `out`, if it is given and fits.
template <class T>
Array<T> results(const py::object& out, const Index* begin, const Index* end) {
  if (out.is_none()) return new_array<T>(begin, end);
  if (Array<T>::check_(out)) {
    const auto array = py::reinterpret_borrow<Array<T>>(out);
    if (array.writeable() && std::equal(begin, end, array.shape(), array.shape() + array.ndim()))
      return array;
  }
  throw py::value_error("out must be a contiguous array to write to, of " +
                        py::str(py::dtype::of<T>()).template cast<std::string>() + " and shape " +
                        text_of({begin, end}));
}

inline bool apart(const void* a, std::size_t a_bytes, const void* b, std::size_t b_bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(a), second = reinterpret_cast<std::uintptr_t>(b);
  return first + a_bytes <= second || second + b_bytes <= first;
}

/// Whether this is NumPy's array itself, and no subclass.
inline bool is_plain_array(const py::object& object) {
  return Py_TYPE(object.ptr()) == py::detail::npy_api::get().PyArray_Type_;
}

/// A parameter, or the gradient of one. Nothing may be copied here.
template <class T>
Array<T> in_place(const char* name, const py::object& object) {
  constexpr int needed =
      py::detail::npy_api::NPY_ARRAY_ALIGNED_ | py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  if (!Array<T>::check_(object) || (py::detail::array_proxy(object.ptr())->flags & needed) != needed)
    throw py::type_error(std::string(name) + " must be a contiguous, aligned and writeable array of " +
                         py::str(py::dtype::of<T>()).template cast<std::string>());
  return py::reinterpret_borrow<Array<T>>(object);
}

/// Where it lies; null for None.
template <class T>
T* parameter(const char* name, const py::object& object, Extents shape) {
  if (object.is_none()) return nullptr;
  return of_shape<T>(name, in_place<T>(name, object), shape).mutable_data();
}

template <class T>
py::object or_none(const Array<T>& array, bool given) {
  return given ? py::object(array) : py::none();
}

inline void make_read_only(const py::array& array) {
  py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
}

} // namespace rnncore
