// One part of a batch through a decoder's steps, there and back, on one thread.
#pragma once

#include "../engine/dispatch.hpp"
#include "decoding.hpp"

namespace rnncore {

constexpr Activation sigmoid{ActivationKind::sigmoid, 0, 0}, tanh{ActivationKind::tanh, 0, 0};

template <class T>
T* row_of(Rows<T> rows, Index row) {
  return rows.base + row * rows.stride;
}

template <class T>
Rows<const T> fixed(Rows<T> rows) {
  return {rows.base, rows.stride};
}

/// The rows of an array; of none where it is empty.
template <class T>
Rows<T> rows_of(const Array<T>& array) {
  return array.ndim() < 2 ? Rows<T>{nullptr, 0}
                          : Rows<T>{const_cast<T*>(array.data()), array.shape(array.ndim() - 1)};
}

/// The nodes of a wave: their rows in arrays of steps and sequences.
struct Wave {
  Index step, n;
  const int32_t *rows, *sequences;

  Wave(const Schedule& s, Index w)
      : step(w), n(s.begin[w + 1] - s.begin[w]), rows(s.row + s.begin[w]),
        sequences(s.sequence + s.begin[w]) {}
};

/// Those of a wave that go on to the next: they stand first.
inline Index going_on(const Schedule& s, Index w) { return w + 1 < s.waves ? Wave(s, w + 1).n : 0; }

/// A linear map of the rows of a wave, with the weights as they were when it was made.
template <class T>
class Map {
public:
  Map(LinearLayer<T>* layer, bool transposed) {
    if (!layer) return;
    if (transposed) check_trains(layer->kernels().backward);
    kernels_ = &layer->kernels();
    shape_ = layer->shape();
    weights_ = layer->snapshot(transposed);
  }
  explicit operator bool() const { return weights_ != nullptr; }
  /// Bytes that `forward` works in, of so many rows.
  Index work(Index rows) const { return kernels_ ? kernels_->work(shape_, rows) : 0; }
  void forward(const Wave& wave, Rows<const T> x, Rows<T> y, void* work) const {
    kernels_->forward({shape_, wave.n, weights_->packed(), x, y, work, wave.rows}, alone);
  }
  void backward(const Wave& wave, Rows<const T> dy, Rows<T> dx) const {
    const void* packed = weights_->transposed.template as<void>();
    kernels_->backward({shape_, wave.n, packed, {nullptr, 0}, dy, dx, nullptr, nullptr, wave.rows}, alone);
  }

private:
  const Linear<T>* kernels_ = nullptr;
  Shape shape_{};
  std::shared_ptr<const Snapshot<T>> weights_;
};

template <class T>
struct Maps {
  Map<T> query, position, point, combine;

  Index work(Index rows) const {
    return std::max({query.work(rows), position.work(rows), point.work(rows), combine.work(rows)});
  }
};

/// What forward and backward share.
template <class T>
class DecodingSteps {
protected:
  DecodingSteps(DecodingTape<T>& tape, const Maps<T>& maps)
      : tape_(tape), maps_(maps), n_(tape.size), y_(rows_of(tape.ys.back())),
        contexts_(rows_of(tape.contexts)), query_(rows_of(tape.query)), position_(rows_of(tape.position)),
        out_(rows_of(tape.out)) {}

  /// The h that asks at a wave: the one it makes, or the one before.
  Rows<const T> asking(Index step) const {
    if (n_.feeds) return fixed(y_);
    if (step > 0) return {y_.base - n_.batch * y_.stride, y_.stride};
    return {tape_.h0.data() + (n_.layers - 1) * n_.batch * n_.top, n_.top};
  }

  /// The columns of x that the loop fills, or their gradients.
  Rows<T> joined(const Array<T>& x) const {
    const Rows<T> all = rows_of(x);
    return {all.base + n_.input - n_.joined, all.stride};
  }

  DecodingTape<T>& tape_;
  const Maps<T>& maps_;
  const DecodingSizes n_;
  const Rows<T> y_, contexts_, query_, position_, out_;
};

template <class T>
class DecodingForward : DecodingSteps<T> {
  using Base = DecodingSteps<T>;
  using Base::tape_, Base::maps_, Base::n_, Base::y_, Base::contexts_, Base::query_, Base::position_,
      Base::out_;

public:
  DecodingForward(DecodingTape<T>& tape, const Maps<T>& maps, AttentionForward<T> call)
      : Base(tape, maps), attention_(call) {
    attention_.weights = tape.weights.mutable_data();
    attention_.context = contexts_;
    if (maps.position) attention_.centre = tape.centre.data();
  }

  /// The waves from `begin` to `end`, as far as there are such. `work`: for the layers and, between them,
  /// the maps.
  void run(Index part, Index begin, Index end, T* attention_work, void* work) {
    work_ = work;
    const Schedule s = tape_.walks.front().schedule(part);
    for (Index w = begin; w < std::min(end, s.waves); ++w) {
      const Wave wave(s, w);
      if (!n_.feeds) {
        attend(wave, attention_work);
        join(wave, wave.n, fixed(contexts_), 0);
      }
      Index l = 0;
      for (const SteppedPasses<T>& walk : tape_.walks) {
        drop(wave, l++);
        walk.forward(part, w, work);
      }
      if (!n_.feeds) continue;
      attend(wave, attention_work);
      combine(wave);
      join(wave, going_on(s, w), fixed(out_), n_.batch);
    }
  }

private:
  void attend(const Wave& wave, T* work) {
    attention_.query = Base::asking(wave.step);
    if (maps_.position) centre(wave, attention_.query);
    if (maps_.query) {
      maps_.query.forward(wave, attention_.query, query_, work_);
      attention_.query = fixed(query_);
    }
    for (Index i = 0; i < wave.n; ++i)
      attention_of<T>().forward(attention_, wave.sequences[i], wave.step, wave.step + 1, work);
  }

  /// p = length * sigmoid(v . tanh(W h))
  void centre(const Wave& wave, Rows<const T> h) {
    maps_.position.forward(wave, h, position_, work_);
    for (Index i = 0; i < wave.n; ++i) {
      T* inner = row_of(position_, wave.rows[i]);
      kernels_of<T>().pointwise.activate(tanh, inner, inner, n_.position);
    }
    T* const p = tape_.centre.mutable_data();
    maps_.point.forward(wave, fixed(position_), {p, 1}, work_);
    for (Index i = 0; i < wave.n; ++i) {
      T* at = p + wave.rows[i];
      kernels_of<T>().pointwise.activate(sigmoid, at, at, 1);
      *at *= T(attention_.lengths[wave.sequences[i]]);
    }
  }

  /// o = tanh(W_c [context; h])
  void combine(const Wave& wave) {
    for (Index i = 0; i < wave.n; ++i)
      std::copy_n(row_of(y_, wave.rows[i]), n_.top, row_of(contexts_, wave.rows[i]) + n_.value);
    maps_.combine.forward(wave, fixed(contexts_), out_, work_);
    for (Index i = 0; i < wave.n; ++i) {
      T* o = row_of(out_, wave.rows[i]);
      kernels_of<T>().pointwise.activate(tanh, o, o, n_.joined);
    }
  }

  /// The first `count` rows of a wave into the input, `ahead` rows later.
  void join(const Wave& wave, Index count, Rows<const T> from, Index ahead) {
    const Rows<T> to = Base::joined(tape_.x);
    for (Index i = 0; i < count; ++i)
      std::copy_n(row_of(from, wave.rows[i]), n_.joined, row_of(to, wave.rows[i] + ahead));
  }

  /// What a layer reads of the one below, times its mask.
  void drop(const Wave& wave, Index l) {
    if (!tape_.masks[l].size()) return;
    const Rows<T> mask = rows_of(tape_.masks[l]), below = rows_of(tape_.ys[l - 1]),
                  to = rows_of(tape_.inputs[l]);
    for (Index i = 0; i < wave.n; ++i)
      for (Index j = 0, row = wave.rows[i]; j < n_.top; ++j)
        row_of(to, row)[j] = row_of(below, row)[j] * row_of(mask, row)[j];
  }

  AttentionForward<T> attention_;
  void* work_ = nullptr;
};

/// Gradients of what a call remembers, (T, B, width) each, zero at first; those of y and the contexts may
/// start from what is given.
template <class T>
struct DecodingGradients {
  Array<T> given;                        // of the outputs, where they are fed back
  Array<T> y, contexts, h, c;            // (L, B, width) h and c
  Array<T> query, position, point, sums; // of what the maps made; sums of W_c
  Array<T> centre, through;              // through: what a map gives back to h
  std::vector<Array<T>> x;               // of each layer
};

template <class T>
class DecodingBackward : DecodingSteps<T> {
  using Base = DecodingSteps<T>;
  using Base::tape_, Base::maps_, Base::n_, Base::y_, Base::query_, Base::position_, Base::out_;

public:
  DecodingBackward(DecodingTape<T>& tape, const Maps<T>& maps, DecodingGradients<T>& d,
                   AttentionBackward<T> call)
      : Base(tape, maps), d_(d), dy_(rows_of(d.y)), dcontexts_(rows_of(d.contexts)),
        dquery_(rows_of(d.query)), dposition_(rows_of(d.position)), through_(rows_of(d.through)),
        djoined_(Base::joined(d.x[0])), attention_(call) {
    attention_.weights = tape.weights.mutable_data();
    attention_.dcontext = fixed(dcontexts_);
    attention_.dquery = dquery_;
    if (!maps.position) return;
    attention_.centre = tape.centre.data();
    attention_.dcentre = d.centre.mutable_data();
  }

  /// The waves from `end` back to `begin`, as far as there are such.
  void run(Index part, Index begin, Index end, T* attention_work, void* work) {
    const Schedule s = tape_.walks.front().schedule(part);
    for (Index w = std::min(end, s.waves); w-- > begin;) {
      const Wave wave(s, w);
      if (n_.feeds) {
        uncombine(wave, going_on(s, w));
        attend_backward(wave, attention_work);
      }
      Index l = n_.layers;
      for (auto walk = tape_.walks.rbegin(); walk != tape_.walks.rend(); ++walk) {
        walk->backward(part, w, work);
        undrop(wave, --l);
      }
      if (n_.feeds) continue;
      for (Index i = 0; i < wave.n; ++i)
        add(row_of(djoined_, wave.rows[i]), n_.value, row_of(dcontexts_, wave.rows[i]));
      attend_backward(wave, attention_work);
    }
  }

private:
  static void add(const T* from, Index n, T* to) {
    for (Index j = 0; j < n; ++j) to[j] += from[j];
  }

  /// do, from outside and from the next step, to d(W_c [context; h]) and on to both.
  void uncombine(const Wave& wave, Index going) {
    const Rows<T> given = rows_of(d_.given), dsums = rows_of(d_.sums);
    for (Index i = 0; i < wave.n; ++i) {
      const Index row = wave.rows[i];
      const T *o = row_of(out_, row), *d = row_of(given, row);
      T* to = row_of(dsums, row);
      std::copy_n(d, n_.joined, to);
      if (i < going) add(row_of(djoined_, row + n_.batch), n_.joined, to);
      for (Index j = 0; j < n_.joined; ++j) to[j] *= T(1) - o[j] * o[j];
    }
    maps_.combine.backward(wave, fixed(dsums), dcontexts_);
    for (Index i = 0; i < wave.n; ++i)
      add(row_of(dcontexts_, wave.rows[i]) + n_.value, n_.top, row_of(dy_, wave.rows[i]));
  }

  /// The contexts' gradients to the memory's and to the h that asked.
  void attend_backward(const Wave& wave, T* work) {
    const Rows<const T> h = Base::asking(wave.step);
    attention_.query = maps_.query ? fixed(query_) : h;
    for (Index i = 0; i < wave.n; ++i)
      attention_of<T>().backward(attention_, wave.sequences[i], wave.step, wave.step + 1, work);
    if (maps_.query) {
      maps_.query.backward(wave, fixed(dquery_), through_);
      to_asking(wave, through_);
    } else {
      to_asking(wave, dquery_);
    }
    if (maps_.position) uncentre(wave);
  }

  void uncentre(const Wave& wave) {
    T* const dpoint = d_.point.mutable_data();
    for (Index i = 0; i < wave.n; ++i) {
      const Index row = wave.rows[i];
      const T p = attention_.centre[row], length = T(attention_.lengths[wave.sequences[i]]);
      dpoint[row] = length > 0 ? attention_.dcentre[row] * p * (T(1) - p / length) : T(0);
    }
    maps_.point.backward(wave, {dpoint, 1}, dposition_);
    for (Index i = 0; i < wave.n; ++i) {
      const T* inner = row_of(position_, wave.rows[i]);
      T* d = row_of(dposition_, wave.rows[i]);
      for (Index j = 0; j < n_.position; ++j) d[j] *= T(1) - inner[j] * inner[j];
    }
    maps_.position.backward(wave, fixed(dposition_), through_);
    to_asking(wave, through_);
  }

  void to_asking(const Wave& wave, Rows<T> from) {
    const Rows<T> first{d_.h.mutable_data() + (n_.layers - 1) * n_.batch * n_.top, n_.top};
    for (Index i = 0; i < wave.n; ++i) {
      T* to = n_.feeds         ? row_of(dy_, wave.rows[i])
              : wave.step == 0 ? row_of(first, wave.sequences[i])
                               : row_of(dy_, wave.rows[i] - n_.batch);
      add(row_of(from, wave.rows[i]), n_.top, to);
    }
  }

  void undrop(const Wave& wave, Index l) {
    if (!tape_.masks[l].size()) return;
    const Rows<T> mask = rows_of(tape_.masks[l]), d = rows_of(d_.x[l]);
    for (Index i = 0; i < wave.n; ++i)
      for (Index j = 0, row = wave.rows[i]; j < n_.top; ++j) row_of(d, row)[j] *= row_of(mask, row)[j];
  }

  DecodingGradients<T>& d_;
  const Rows<T> dy_, dcontexts_, dquery_, dposition_, through_, djoined_;
  AttentionBackward<T> attention_;
};

} // namespace rnncore
