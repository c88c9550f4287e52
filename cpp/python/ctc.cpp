#include "ctc.hpp"

#include "../engine/alignment.hpp"
#include "../engine/dispatch.hpp"
#include "sequences.hpp"

namespace rnncore {
namespace {

/// Operations for a state of a frame, and for a class of one.
constexpr double state_work = 30, class_work = 20;

} // namespace

template <class T>
CtcBatch<T>::CtcBatch(const py::object& logits, bool batch_first, const py::object& lengths,
                      const py::object& labels, const py::object& counts, Index blank)
    : logits_(contiguous<T>(logits)), batch_first_(batch_first), steps_(logits_.shape(batch_first ? 1 : 0)),
      batch_(logits_.shape(batch_first ? 0 : 1)), classes_(logits_.shape(2)), blank_(blank),
      lengths_(of_shape<int64_t>("lengths", lengths, {batch_})),
      counts_(of_shape<int64_t>("counts", counts, {batch_})), labels_(contiguous<int64_t>(labels)) {
  starts_.assign(1, 0);
  for (Index b = 0; b < batch_; ++b) {
    starts_.push_back(starts_.back() + counts_.data()[b]);
    if (lengths_.data()[b] < 0 || lengths_.data()[b] > steps_ || counts_.data()[b] < 0)
      throw py::value_error("lengths: unexpected");
  }
  const int64_t* const begin = labels_.data();
  if (labels_.ndim() != 1 || labels_.size() != starts_.back() || blank < 0 || blank >= classes_ ||
      std::any_of(begin, begin + labels_.size(), [&](int64_t k) { return k < 0 || k >= classes_; }))
    throw py::value_error("labels: unexpected");
  log_sums_.resize(std::size_t(batch_ * steps_));
  kept_.assign(std::size_t(batch_ + 1), 0);
  for (Index b = 0; b < batch_; ++b)
    kept_[b + 1] = kept_[b] + alignment_of<T>().ctc.kept(sequence<CtcSequence<T>>(b, nullptr));
  states_.resize(std::size_t(kept_.back()));
}

template <class T>
double CtcBatch<T>::work() const {
  double sum = 0;
  for (Index b = 0; b < batch_; ++b)
    sum += double(lengths_.data()[b]) *
           (double(counts_.data()[b]) * state_work + double(classes_) * class_work);
  return sum;
}

template <class T>
template <class S>
S CtcBatch<T>::sequence(Index b, void* space) {
  S s{};
  s.logits = logits_.data() + b * classes_ * (batch_first_ ? steps_ : 1);
  s.steps = lengths_.data()[b];
  s.stride = classes_ * (batch_first_ ? 1 : batch_);
  s.classes = classes_;
  s.blank = blank_;
  s.labels = labels_.data() + starts_[b];
  s.count = counts_.data()[b];
  s.log_sums = log_sums_.data() + b * steps_;
  s.starts = states_.data() + kept_[b];
  s.work = space;
  return s;
}

template <class T>
Index CtcBatch<T>::space(bool backward) {
  Index most = 0;
  for (Index b = 0; b < batch_; ++b)
    most = std::max(most, alignment_of<T>().ctc.work(sequence<CtcSequence<T>>(b, nullptr), backward));
  return most;
}

template <class T>
Array<double> CtcBatch<T>::forward() {
  Array<double> found = new_array<double>({batch_});
  double* const to = found.mutable_data();
  {
    const ReleaseGil release{Index(work())};
    over_sequences(batch_, work(), space(false), [&](void* memory) {
      return [&, memory](Index b) {
        to[b] = alignment_of<T>().ctc.forward(sequence<CtcSequence<T>>(b, memory));
      };
    });
  }
  log_likelihoods_.assign(to, to + batch_);
  return found;
}

template <class T>
Array<T> CtcBatch<T>::backward(const py::object& scales) {
  if (Index(log_likelihoods_.size()) != batch_) throw py::value_error("backward needs forward");
  const Array<double> scale = of_shape<double>("scales", scales, {batch_});
  Array<T> gradient = new_array<T>(logits_.shape(), logits_.shape() + 3);
  T* const to = gradient.mutable_data();
  {
    const ReleaseGil release{Index(work())};
    over_sequences(batch_, 2 * work(), space(true), [&](void* memory) {
      return [&, memory](Index b) {
        auto s = sequence<CtcBackward<T>>(b, memory);
        s.log_likelihood = log_likelihoods_[b];
        s.scale = scale.data()[b];
        s.gradient = to + (s.logits - logits_.data());
        alignment_of<T>().ctc.backward(s);
        for (Index t = s.steps; t < steps_; ++t) std::fill_n(s.gradient + t * s.stride, classes_, T(0));
      };
    });
  }
  return gradient;
}

template class CtcBatch<float>;
template class CtcBatch<double>;

} // namespace rnncore
