#include "transducer.hpp"

#include "../engine/alignment.hpp"
#include "../engine/dispatch.hpp"
#include "sequences.hpp"

namespace rnncore {
namespace {

/// Fewer operations than this are done before another thread is awake.
constexpr double least_chunk_work = 500'000;
/// Operations for a number that has an exponential, and for a node of a lattice.
constexpr double exponential_work = 20, node_work = 60;
/// Nodes of a chunk are a multiple of this, as blocks of products are, and their numbers fit into so many
/// bytes: they are to stay in a cache.
constexpr Index node_block = 128, chunk_bytes = 2 << 20, most_nodes = 2048;

/// Nodes that paths take with a smaller probability add nothing to gradients but what is rounded away.
template <class T>
constexpr double negligible =
    double(std::numeric_limits<T>::epsilon()) * double(std::numeric_limits<T>::epsilon());

Index chunk_threads(double work) { return std::min(num_threads(), 1 + Index(work / least_chunk_work)); }

Index nodes_for(Index bytes) {
  return std::clamp(chunk_bytes / bytes / node_block * node_block, node_block, most_nodes);
}

template <class T>
const Transducer<T>& kernels_for() {
  return alignment_of<T>().transducer;
}

} // namespace

Lattices::Lattices(const py::object& lengths, const py::object& labels, const py::object& counts,
                   Index blank, Index frames, Index width, Index classes)
    : lengths_(contiguous<int64_t>(lengths)), counts_(contiguous<int64_t>(counts)),
      labels_(contiguous<int64_t>(labels)), batch_(lengths_.size()), blank_(blank), frames_(frames),
      width_(width), classes_(classes), starts_(1, 0), places_(1, 0), arcs_(no_array<double>()) {
  if (counts_.size() != batch_) throw py::value_error("counts: unexpected shape");
  for (Index b = 0; b < batch_; ++b) {
    const Index length = lengths_.data()[b], count = counts_.data()[b];
    if (length < 1 || length > frames || count < 0 || count >= width)
      throw py::value_error("lengths: unexpected");
    starts_.push_back(starts_.back() + count);
    places_.push_back(places_.back() + (length + count) * (count + 1));
    nodes_ += length * (count + 1);
  }
  check_rows("f", frames * batch_);
  check_rows("g", width * batch_);
  const int64_t* const begin = labels_.data();
  if (labels_.size() != starts_.back() || blank < 0 || blank >= classes ||
      std::any_of(begin, begin + labels_.size(), [&](int64_t k) { return k < 0 || k >= classes; }))
    throw py::value_error("labels: unexpected");
  arcs_ = new_array<double>({2, places_.back()});
}

struct Lattices::Node {
  Index sequence = 0, t = 0, u = 0;
};

/// The nodes from `next` on that keep(sequence, place) keeps, at most so many.
template <class K>
void Lattices::fill(Chunk& chunk, Node& next, Index most, const double* scales, K keep) const {
  Index rows = 0;
  for (auto& [b, t, u] = next; b < batch_ && rows < most; t = u = 0, ++b) {
    const Index count = counts_.data()[b], length = scales && scales[b] == 0 ? 0 : lengths_.data()[b];
    for (; t < length; ++t, u = 0) {
      for (; u <= count && rows < most; ++u) {
        const Index place = places_[b] + (t + u) * (count + 1) + u;
        if (!keep(place)) continue;
        chunk.frame[rows] = int32_t(t * batch_ + b);
        chunk.label[rows] = int32_t(u * batch_ + b);
        chunk.next[rows] = u < count ? int32_t(labels_.data()[starts_[b] + u]) : -1;
        chunk.row[rows] = (b * frames_ + t) * width_ + u;
        chunk.place[rows] = place;
        chunk.scale[rows] = scales ? scales[b] : 1;
        ++rows;
      }
      if (u <= count) break;
    }
    if (t < length) break;
  }
  chunk.rows = rows;
}

template <class K, class F>
void Lattices::chunks(Index most, const double* scales, K keep, F f) const {
  Chunk chunk;
  const std::size_t rows = std::size_t(std::min(most, nodes()));
  for (auto* numbers : {&chunk.frame, &chunk.label, &chunk.next}) numbers->resize(rows);
  for (auto* numbers : {&chunk.row, &chunk.place}) numbers->resize(rows);
  chunk.scale.resize(rows);
  for (Node next;;) {
    fill(chunk, next, most, scales, keep);
    if (!chunk.rows) break;
    f(chunk);
    Watch::pause();
  }
}

template <class F>
void Lattices::in_chunks(Index most, F f) const {
  chunks(most, nullptr, [](Index) { return true; }, f);
}

template <class F>
void Lattices::in_chunks(Index most, const double* scales, double least, F f) const {
  const double *const blanks = arcs_.data(), *const labels = blanks + places_.back();
  // Not the other way round: NaN is to be kept.
  chunks(most, scales, [=](Index place) { return !(blanks[place] + labels[place] < least); }, f);
}

template <class T>
NodeLogits<T> Lattices::logits(const Chunk& chunk, const T* logits, bool all) {
  double* const arcs = arcs_.mutable_data();
  return {chunk.rows,           classes_,          logits, all ? chunk.row.data() : nullptr,
          chunk.place.data(),   chunk.next.data(), blank_, arcs,
          arcs + places_.back()};
}

void Lattices::clear() { std::fill_n(arcs_.mutable_data(), arcs_.size(), no_path); }

template <class T>
void Lattices::walk(bool wants_gradients, double* found) {
  Index most = 0;
  for (Index b = 0; b < batch_; ++b)
    most = std::max(most, places_[b + 1] - places_[b] + counts_.data()[b] + 2);
  double* const arcs = arcs_.mutable_data();
  const double work = node_work * double(places_.back()) * (wants_gradients ? 3 : 1);
  over_sequences(batch_, work, most * Index(sizeof(double)), [&](void* space) {
    return [&, space](Index b) {
      double* const blanks = arcs + places_[b];
      found[b] = kernels_for<T>().walk({lengths_.data()[b], counts_.data()[b], blanks,
                                        blanks + places_.back(), static_cast<double*>(space)},
                                       wants_gradients);
    };
  });
}

template <class T>
TransducerLogits<T>::TransducerLogits(const py::object& logits, const py::object& lengths,
                                      const py::object& labels, const py::object& counts, Index blank)
    : logits_(contiguous<T>(logits)),
      lattices_(lengths, labels, counts, blank, logits_.shape(1), logits_.shape(2), logits_.shape(3)) {
  if (logits_.ndim() != 4 || logits_.shape(0) != lattices_.batch())
    throw py::value_error("logits: unexpected shape");
}

template <class T>
Array<double> TransducerLogits<T>::forward() {
  Array<double> found = new_array<double>({lattices_.batch()});
  double* const to = found.mutable_data();
  const double node = exponential_work * double(logits_.shape(3));
  {
    const ReleaseGil release(Index(node * double(lattices_.nodes())));
    lattices_.clear();
    lattices_.in_chunks(most_nodes, [&](const Lattices::Chunk& chunk) {
      const NodeLogits<T> nodes = lattices_.logits(chunk, logits_.data(), true);
      on_team(chunk_threads(node * double(chunk.rows)),
              [&](const Team& team) { kernels_for<T>().score(nodes, team); });
    });
    lattices_.template walk<T>(false, to);
  }
  return found;
}

template <class T>
Array<T> TransducerLogits<T>::backward(const py::object& scales_object, double label_weight) {
  const Array<double> scales = of_shape<double>("scales", scales_object, {lattices_.batch()});
  Array<T> gradient = new_array<T>(logits_.shape(), logits_.shape() + 4);
  T* const to = gradient.mutable_data();
  const double node = exponential_work * double(logits_.shape(3));
  {
    const ReleaseGil release(Index(node * double(lattices_.nodes())));
    std::fill_n(to, gradient.size(), T(0));
    std::vector<double> found(std::size_t(lattices_.batch()));
    lattices_.template walk<T>(true, found.data());
    lattices_.in_chunks(most_nodes, scales.data(), negligible<T>, [&](const Lattices::Chunk& chunk) {
      const NodeGradients<T> d{lattices_.logits(chunk, logits_.data(), true), chunk.scale.data(),
                               label_weight, to};
      on_team(chunk_threads(node * double(chunk.rows)),
              [&](const Team& team) { kernels_for<T>().differentiate(d, team); });
    });
  }
  return gradient;
}

/// What chunks of nodes are computed in, by all threads.
template <class T>
struct TransducerJoint<T>::Space {
  T *h, *z, *dh;
  char* product; // of each thread `bytes`
  Index bytes;

  Space(const TransducerJoint& joint, Index rows, Index threads)
      : bytes(joint.output_.kernels().work(joint.output_.shape(), rows)) {
    const Index H = joint.output_.shape().input, V = joint.output_.shape().hidden;
    h = static_cast<T*>(
        scratch(std::size_t(rows * (2 * H + V)) * sizeof(T) + std::size_t(bytes * threads) + 64));
    dh = h + rows * H;
    z = dh + rows * H;
    const auto end = reinterpret_cast<std::uintptr_t>(z + rows * V);
    product = reinterpret_cast<char*>((end + 63) / 64 * 64);
  }
};

template <class T>
TransducerJoint<T>::TransducerJoint(LinearLayer<T>& output, const py::object& f, const py::object& g,
                                    const py::object& lengths, const py::object& labels,
                                    const py::object& counts, Index blank)
    : output_(output), f_(contiguous<T>(f)), g_(contiguous<T>(g)),
      lattices_(lengths, labels, counts, blank, f_.shape(0), g_.shape(0), output.shape().hidden) {
  for (const Array<T>* rows : {&f_, &g_})
    if (rows->ndim() != 3 || rows->shape(1) != lattices_.batch() || rows->shape(2) != output.shape().input)
      throw py::value_error("f and g: unexpected shapes");
}

template <class T>
double TransducerJoint<T>::work() const {
  const Shape& shape = output_.shape();
  return 2.0 * double(shape.input) * double(shape.hidden) +
         exponential_work * double(shape.input + shape.hidden);
}

template <class T>
Index TransducerJoint<T>::chunk() const {
  return nodes_for((2 * output_.shape().input + output_.shape().hidden) * Index(sizeof(T)));
}

/// Logits of a thread's share of the nodes.
template <class T>
JointNodes<T> TransducerJoint<T>::join(const Lattices::Chunk& chunk, const Space& space,
                                       const Team& team) const {
  const Index H = output_.shape().input, V = output_.shape().hidden;
  const JointNodes<T> nodes{chunk.rows, H,      chunk.frame.data(), chunk.label.data(), f_.data(),
                            g_.data(),  space.h};
  kernels_for<T>().join(nodes, team);
  output_.kernels().forward({output_.shape(),
                             chunk.rows,
                             weights_->packed(),
                             {space.h, H},
                             {space.z, V},
                             space.product + space.bytes * team.rank},
                            team);
  return nodes;
}

template <class T>
Array<double> TransducerJoint<T>::forward() {
  output_.check_parameters();
  Array<double> found = new_array<double>({lattices_.batch()});
  double* const to = found.mutable_data();
  {
    const ReleaseGil release(Index(work() * double(lattices_.nodes())));
    weights_ = output_.snapshot(output_.kernels().backward != nullptr);
    lattices_.clear();
    lattices_.in_chunks(chunk(), [&](const Lattices::Chunk& chunk) {
      const Index threads = chunk_threads(work() * double(chunk.rows));
      const Space space(*this, chunk.rows, threads);
      const NodeLogits<T> logits = lattices_.logits(chunk, space.z, false);
      on_team(threads, [&](const Team& team) {
        join(chunk, space, team);
        kernels_for<T>().score(logits, team);
      });
    });
    lattices_.template walk<T>(false, to);
  }
  return found;
}

template <class T>
py::tuple TransducerJoint<T>::backward(const py::object& scales_object, double label_weight, bool bias) {
  check_trains(output_.kernels().backward);
  const Array<double> scales = of_shape<double>("scales", scales_object, {lattices_.batch()});
  const Shape shape = output_.shape();
  const Index H = shape.input, V = shape.hidden;
  Array<T> df = new_array<T>(f_.shape(), f_.shape() + 3), dg = new_array<T>(g_.shape(), g_.shape() + 3);
  Array<T> weight = new_array<T>({V, H}), offsets = new_array<T>({V});
  for (Array<T>* array : {&df, &dg, &weight, &offsets})
    std::fill_n(array->mutable_data(), array->size(), T(0));
  T *const to_f = df.mutable_data(), *const to_g = dg.mutable_data();
  T *const to_weight = weight.mutable_data(), *const to_bias = bias ? offsets.mutable_data() : nullptr;
  {
    const ReleaseGil release(Index(3 * work() * double(lattices_.nodes())));
    std::vector<double> found(std::size_t(lattices_.batch()));
    lattices_.template walk<T>(true, found.data());
    lattices_.in_chunks(chunk(), scales.data(), negligible<T>, [&](const Lattices::Chunk& chunk) {
      const Index threads = chunk_threads(3 * work() * double(chunk.rows));
      const Space space(*this, chunk.rows, threads);
      const NodeGradients<T> d{lattices_.logits(chunk, space.z, false), chunk.scale.data(), label_weight,
                               space.z};
      on_team(threads, [&](const Team& team) {
        const JointNodes<T> nodes = join(chunk, space, team);
        kernels_for<T>().differentiate(d, team);
        team.wait(team.barrier); // the weights' gradients take all rows
        output_.kernels().backward({shape,
                                    chunk.rows,
                                    weights_->transposed.template as<void>(),
                                    {space.h, H},
                                    {space.z, V},
                                    {space.dh, H},
                                    to_weight,
                                    to_bias},
                                   team);
        team.wait(team.barrier);
        kernels_for<T>().part({nodes, space.dh, to_f, to_g}, team);
      });
    });
  }
  return py::make_tuple(df, dg, weight, or_none(offsets, bias));
}

template <class T>
Array<T> joint_rows(const py::object& f_object, const py::object& g_object) {
  const Array<T> f = contiguous<T>(f_object), g = contiguous<T>(g_object);
  if (f.ndim() != 2 || g.ndim() != 2 || f.shape(1) != g.shape(1))
    throw py::value_error("f and g: unexpected shapes");
  const Index rows = std::max(f.shape(0), g.shape(0)), width = f.shape(1);
  if ((f.shape(0) != rows && f.shape(0) != 1) || (g.shape(0) != rows && g.shape(0) != 1))
    throw py::value_error("f and g: a row for each, or one for all");
  check_rows("f", rows);
  Array<T> h = new_array<T>({rows, width});
  std::vector<int32_t> each(rows), one(rows, 0);
  for (Index r = 0; r < rows; ++r) each[r] = int32_t(r);
  kernels_for<T>().join({rows, width, f.shape(0) > 1 ? each.data() : one.data(),
                         g.shape(0) > 1 ? each.data() : one.data(), f.data(), g.data(), h.mutable_data()},
                        alone);
  return h;
}

template class TransducerLogits<float>;
template class TransducerLogits<double>;
template class TransducerJoint<float>;
template class TransducerJoint<double>;
template Array<float> joint_rows(const py::object&, const py::object&);
template Array<double> joint_rows(const py::object&, const py::object&);

} // namespace rnncore
