#include "crf.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "../engine/alignment.hpp"
#include "../engine/dispatch.hpp"
#include "sequences.hpp"

namespace rnncore {
namespace {

template <class T>
Array<T> emissions_of(const py::object& object) {
  const Array<T> emissions = contiguous<T>(object);
  if (emissions.ndim() != 3 || emissions.shape(2) == 0)
    throw py::value_error("emissions: unexpected shape");
  return emissions;
}

} // namespace

/// Sums of gradients that have the same bits in whatever order rows are added: whole numbers of a unit that
/// is so small that double has no smaller one for the largest sum there may be.
class CrfGradients {
public:
  /// Of n numbers, for rows with these scales and as many steps in all.
  CrfGradients(Index n, const double* scales, Index rows, double steps) : sums_(std::size_t(n)) {
    double bound = 0;
    for (Index b = 0; b < rows; ++b) {
      bound = std::max(bound, std::abs(scales[b]));
      finite_ = finite_ && std::isfinite(scales[b] * steps);
    }
    int exponent = 0;
    if (finite_) std::frexp(bound * steps, &exponent);
    per_ = std::ldexp(1., 61 - std::max(exponent, -900));
  }

  double per() const { return per_; }

  /// A thread's own sums, which are added when it has done its rows.
  class Part {
  public:
    Part(CrfGradients& all, int64_t* sums) : all_(all), sums_(sums) {
      std::fill_n(sums_, all_.sums_.size(), 0);
    }
    Part(const Part&) = delete;
    ~Part() {
      const std::lock_guard lock(all_.adding_);
      for (std::size_t i = 0; i < all_.sums_.size(); ++i) all_.sums_[i] += sums_[i];
    }

    int64_t* sums() const { return sums_; }

  private:
    CrfGradients& all_;
    int64_t* sums_;
  };

  /// Of NaN in a loss, all are NaN.
  void see(const double* losses, Index rows) {
    finite_ = finite_ && std::none_of(losses, losses + rows, [](double loss) { return loss != loss; });
  }

  template <class T>
  void write(Index from, Array<T>& to) const {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    T* const numbers = to.mutable_data();
    for (Index i = 0; i < to.size(); ++i) numbers[i] = T(finite_ ? double(sums_[from + i]) / per_ : nan);
  }

private:
  std::vector<int64_t> sums_;
  double per_;
  bool finite_ = true;
  std::mutex adding_;
};

/// Booleans (T, B, K) or whole numbers (T, B), or neither.
struct CrfTargets {
  Array<bool> possible = no_array<bool>();
  Array<int64_t> tags = no_array<int64_t>();
};

static CrfTargets targets_of(const py::object& object, Extents rows, Index tags) {
  CrfTargets to;
  if (object.is_none()) return to;
  const Index first = *rows.begin(), second = *(rows.begin() + 1);
  if (py::isinstance<py::array_t<bool>>(object))
    to.possible = of_shape<bool>("targets", object, {first, second, tags});
  else
    to.tags = of_shape<int64_t>("targets", object, {first, second});
  if (!to.tags) return to;
  const int64_t* const all = to.tags.data();
  if (std::any_of(all, all + to.tags.size(), [&](int64_t tag) { return tag >= tags; }))
    throw py::value_error("targets: not of these tags");
  return to;
}

template <class T>
CrfBatch<T>::CrfBatch(const py::object& emissions, bool batch_first, const py::object& lengths,
                      const py::object& transitions, const py::object& start, const py::object& end,
                      const py::object& allowed)
    : emissions_(emissions_of<T>(emissions)), batch_first_(batch_first),
      steps_(emissions_.shape(batch_first ? 1 : 0)), batch_(emissions_.shape(batch_first ? 0 : 1)),
      tags_(emissions_.shape(2)), lengths_(lengths) {
  if (!lengths.is_none()) {
    until_ = of_shape<int64_t>("lengths", lengths, {batch_});
    for (Index b = 0; b < batch_; ++b)
      if (length(b) < 0 || length(b) > steps_) throw py::value_error("lengths: not of emissions");
  }
  const Array<T> to = of_shape<T>("transitions", transitions, {tags_, tags_});
  const Array<T> first = of_shape<T>("start", start, {tags_}), last = of_shape<T>("end", end, {tags_});
  Array<bool> may;
  if (!allowed.is_none()) may = of_shape<bool>("allowed", allowed, {tags_ + 2, tags_});
  prepared_ = Buffer(std::size_t(alignment_of<T>().crf.prepared(tags_)));
  alignment_of<T>().crf.prepare(
      {tags_, to.data(), first.data(), last.data(), allowed.is_none() ? nullptr : may.data()},
      prepared_.as<void>());
}

template <class T>
template <class S>
S CrfBatch<T>::sequence(Index b, void* space) const {
  S s{};
  s.prepared = prepared_.as<void>();
  s.emissions = emissions_.data() + first(b) * tags_;
  s.steps = length(b);
  s.stride = stride() * tags_;
  s.work = space;
  return s;
}

/// How many rows go together: fewer than there may be if threads would have nothing to do.
template <class T>
Index CrfBatch<T>::side_by_side() const {
  return std::clamp<Index>(batch_ / (2 * num_threads()), 1, crf_rows);
}

template <class T>
py::tuple CrfBatch<T>::loss(const py::object& targets_object, const py::object& scales_object) const {
  const auto& kernels = alignment_of<T>().crf;
  const bool backward = !scales_object.is_none();
  const Extents rows{emissions_.shape(0), emissions_.shape(1)};
  const CrfTargets targets = targets_of(targets_object, rows, tags_);
  Array<double> losses = new_array<double>({batch_}), scales;
  double* const to = losses.mutable_data();
  double steps = 0;
  if (backward) scales = of_shape<double>("scales", scales_object, {batch_});
  for (Index b = 0; b < batch_; ++b) steps += double(length(b));
  Array<T> dx = no_array<T>();
  if (backward) dx = new_array<T>({emissions_.shape(0), emissions_.shape(1), tags_});
  T* const gradient = backward ? dx.mutable_data() : nullptr;
  const Index sums = backward ? (tags_ + 2) * tags_ : 0, space = (sums + 7) / 8 * 64; // whole lines
  CrfGradients all(sums, backward ? scales.data() : nullptr, backward ? batch_ : 0, steps);
  {
    const ReleaseGil release(Index(work()) * (backward ? 4 : 1));
    const Index most = side_by_side();
    const Index each = (kernels.loss_work(tags_, steps_, backward) + 63) / 64 * 64;
    const auto call = [&](Index b, int64_t* own, void* memory) {
      auto s = sequence<CrfLoss<T>>(b, memory);
      s.target_stride = stride();
      if (targets.tags) s.targets = targets.tags.data() + first(b);
      if (targets.possible) s.possible = targets.possible.data() + first(b) * tags_;
      if (!backward) return s;
      s.gradient = gradient + first(b) * tags_;
      s.scale = scales.data()[b];
      s.sums = own;
      s.per = all.per();
      if (s.scale == 0) s.steps = 0; // the loss of what counts nothing is not asked for
      for (Index t = s.steps; t < steps_; ++t) std::fill_n(s.gradient + t * s.stride, tags_, T(0));
      return s;
    };
    over_sequences(
        (batch_ + most - 1) / most, work() * (backward ? 4 : 1), space + most * each, [&](char* memory) {
          return
              [&, memory, part = CrfGradients::Part(all, reinterpret_cast<int64_t*>(memory))](Index group) {
                CrfLoss<T> calls[crf_rows];
                const Index begin = group * most, rows = std::min(most, batch_ - begin);
                for (Index r = 0; r < rows; ++r)
                  calls[r] = call(begin + r, part.sums(), memory + space + r * each);
                kernels.loss(calls, rows, to + begin);
              };
        });
    all.see(to, batch_);
  }
  if (!backward) return py::make_tuple(losses, py::none(), py::none(), py::none(), py::none());
  Array<T> transitions = new_array<T>({tags_, tags_}), start = new_array<T>({tags_}),
           end = new_array<T>({tags_});
  all.write(0, transitions);
  all.write(tags_ * tags_, start);
  all.write((tags_ + 1) * tags_, end);
  return py::make_tuple(losses, dx, transitions, start, end);
}

template <class T>
py::tuple CrfBatch<T>::decode(Index count) const {
  const auto& kernels = alignment_of<T>().crf;
  if (count < 1 || count > std::numeric_limits<int32_t>::max() / tags_)
    throw py::value_error("count: not so many");
  Array<int64_t> tags = new_array<int64_t>({count, emissions_.shape(0), emissions_.shape(1)});
  Array<double> scores = new_array<double>({count, batch_});
  int64_t* const to = tags.mutable_data();
  double* const of = scores.mutable_data();
  const double operations = work() * (count == 1 ? 1 : 4 * double(count));
  {
    const ReleaseGil release(Index(std::min(operations, 1e15)));
    const Index most = side_by_side();
    const Index space = (kernels.decode_work(tags_, steps_, count) + 63) / 64 * 64;
    over_sequences((batch_ + most - 1) / most, operations, most * space, [&](char* memory) {
      return [&, memory](Index group) {
        CrfDecode<T> calls[crf_rows];
        const Index begin = group * most, rows = std::min(most, batch_ - begin);
        for (Index r = 0; r < rows; ++r) {
          auto& s = calls[r] = sequence<CrfDecode<T>>(begin + r, memory + r * space);
          s.count = count;
          s.tags = to + first(begin + r);
          s.tag_stride = stride();
          s.next = steps_ * batch_;
          s.scores = of + begin + r;
          s.next_score = batch_;
        }
        kernels.decode(calls, rows);
        for (Index r = 0; r < rows; ++r)
          for (Index i = 0; i < count; ++i)
            for (Index t = calls[r].steps; t < steps_; ++t)
              calls[r].tags[i * calls[r].next + t * calls[r].tag_stride] = -1;
      };
    });
  }
  return py::make_tuple(tags, scores);
}

template class CrfBatch<float>;
template class CrfBatch<double>;

} // namespace rnncore
