#include "own_steps.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

constexpr Index most_spots = 8; // an even number

/// Runs the code of a phase over spots, some of them at a time. Backward, what some need is asked for
/// while those before them are computed: each operation on the tape's numbers would else wait for all of
/// its spots.
template <class T, bool back>
class Machine {
  using V = Vec<T>;

public:
  Machine(const Layout<T>& at, const Span<T>& span, Code code, bool last)
      : at_(at), span_(span), code_(code), constants_(at.plan.own->constants), H_(at.shape.hidden),
        scalars_(at.shape.input), vectors_(at.shape.input + at.shape.scalars), last_(last) {}

  RNNCORE_INLINE void add(const Spot<T>& spot) {
    Batch* const batch = batches_ + filled_;
    batch->spots[batch->count++] = spot;
    if (back) ask_for(spot);
    if (batch->count < most_spots) return;
    if (back) filled_ ^= 1;
    run(batches_[filled_]);
  }
  /// Those that were added and have not been computed yet.
  void finish() {
    if (back) run(batches_[filled_ ^ 1]);
    run(batches_[filled_]);
  }

private:
  struct Batch {
    Spot<T> spots[most_spots];
    Index count = 0;
  };

  void run(Batch& batch) {
    spots_ = batch.spots;
    count_ = batch.count;
    batch.count = 0;
    if (count_ == 0) return;
    for (const Instruction* i = code_.begin; i != code_.end; ++i) execute(*i);
  }
  RNNCORE_INLINE void ask_for(const Spot<T>& s) const {
    for (Index j = 0; j < at_.plan.slots; ++j) will_write(s.place.slot(s.row, j));
    will_read(span_.dh[s.row] + s.place.column);
    if (span_.dy) will_read(span_.dy[s.row] + s.place.column);
    for (Index k = 0; k < at_.plan.own->cells; ++k)
      will_read(span_.c_prev[s.row] + k * H_ + s.place.column);
  }

  /// to = f(spot, where it is among those at hand)
  template <class F>
  RNNCORE_INLINE void load_each(const Instruction& i, F f) {
    V* const to = registers_[i.to];
    for (Index k = 0; k < count_; ++k) to[k] = f(spots_[k]);
  }
  /// f(spot, a)
  template <class F>
  RNNCORE_INLINE void store_each(const Instruction& i, F f) {
    const V* const a = registers_[i.a];
    for (Index k = 0; k < count_; ++k) f(spots_[k], a[k]);
  }
  template <class F>
  RNNCORE_INLINE void map(const Instruction& i, F f) {
    V* const to = registers_[i.to];
    const V* const a = registers_[i.a];
    for (Index k = 0; k < count_; ++k) to[k] = f(a[k]);
  }
  /// The same of what is a long chain of operations, two by two. What is beyond the last spot is not used.
  template <class F>
  RNNCORE_INLINE void map_pairs(const Instruction& i, F f) {
    V* const to = registers_[i.to];
    const V* const a = registers_[i.a];
    for (Index k = 0; k < count_; k += 2) {
      const Pair<T> found = f(Pair<T>(a[k], a[k + 1 < count_ ? k + 1 : k]));
      to[k] = found.a, to[k + 1] = found.b;
    }
  }
  template <class F>
  RNNCORE_INLINE void map_lanes(const Instruction& i, F f) {
    map(i, [&](V v) RNNCORE_HOT {
      alignas(64) T numbers[lanes<T>];
      store(numbers, v);
      for (int lane = 0; lane < lanes<T>; ++lane) numbers[lane] = f(numbers[lane]);
      return load(numbers);
    });
  }
  template <class F>
  RNNCORE_INLINE void map2(const Instruction& i, F f) {
    V* const to = registers_[i.to];
    const V *const a = registers_[i.a], *const b = registers_[i.b];
    for (Index k = 0; k < count_; ++k) to[k] = f(a[k], b[k]);
  }
  template <class F>
  RNNCORE_INLINE void map3(const Instruction& i, F f) {
    V* const to = registers_[i.to];
    const V *const a = registers_[i.a], *const b = registers_[i.b], *const c = registers_[i.c];
    for (Index k = 0; k < count_; ++k) to[k] = f(a[k], b[k], c[k]);
  }
  template <class F>
  RNNCORE_INLINE void map4(const Instruction& i, F f) {
    V* const to = registers_[i.to];
    const V *const a = registers_[i.a], *const b = registers_[i.b], *const c = registers_[i.c],
                   *const d = registers_[i.d];
    for (Index k = 0; k < count_; ++k) to[k] = f(a[k], b[k], c[k], d[k]);
  }

  using S = const Spot<T>&;

  Activation activation(const Instruction& i) const {
    return {ActivationKind(i.b), constants_[i.c], constants_[i.d]};
  }
  const T* unit(S s, Index k) const { return span_.units + k * at_.hidden.padded() + s.place.column; }
  V dh(S s) const { return last_ && span_.dy ? s.from(span_.dh) + s.from(span_.dy) : s.from(span_.dh); }

  /// Of an old state, that stays: none where there are no masks.
  V share(S s, const T* const* keep) const { return keep ? s.from(keep) : V(T(0)); }
  void add_unit(S s, V v, Index k) const {
    T* const to = span_.d_units + k * at_.hidden.padded() + s.place.column;
    store(to, load(to) + v);
  }
  void add_scalar(S s, V v, Index e) const {
    if (span_.d_scalars)
      span_.d_scalars[s.row][e * at_.hidden.vectors.n + s.place.column / lanes<T>] +=
          sum_of(first_lanes(v, s.place.valid));
  }
  /// The gradient of an old state, or of a sum of some: it is that of each of them.
  void put_back(const Instruction& i, T* const* rows, Index column) {
    if (!span_.edges) return store_each(i, [&](S s, V v) RNNCORE_HOT { s.put(rows[s.row] + column, v); });
    store_each(i, [&](S s, V v) RNNCORE_HOT {
      for_each_edge(span_, s.row, [&](Index e) RNNCORE_HOT { s.put(rows[e] + column, v, true); });
    });
  }
  void put_vector(S s, V v, Index k) const {
    if (span_.dx) s.put(span_.dx[s.row] + vectors_ + k * H_, v, span_.adds_x);
  }

  void execute(const Instruction& i);
  RNNCORE_NOINLINE void execute_rare(const Instruction& i);

  const Layout<T>& at_;
  const Span<T>& span_;
  const Code code_;
  const double* const constants_;
  const Index H_, scalars_, vectors_; // columns of x before its scalars, and before its vectors
  const bool last_;                   // of the phases
  Batch batches_[back ? 2 : 1];
  Index filled_ = 0;               // the batch that spots are added to
  const Spot<T>* spots_ = nullptr; // those at hand
  Index count_ = 0;
  V registers_[most_registers][most_spots];
};

/// What is met in nearly every step: part of the loop over the code, so that going from one operation to
/// the next is a jump.
template <class T, bool back>
RNNCORE_INLINE void Machine<T, back>::execute(const Instruction& i) {
  using Op = CellOperation;
  switch (i.operation) {
  case Op::slot:
    return load_each(i, [&](S s) RNNCORE_HOT { return s.slot(i.a); });
  case Op::h:
    return load_each(i, [&](S s) RNNCORE_HOT { return s.from(span_.h_prev); });
  case Op::state:
    return load_each(i, [&](S s) RNNCORE_HOT { return s.from(span_.c_prev[s.row] + i.a * H_); });
  case Op::unit:
    return load_each(i, [&](S s) RNNCORE_HOT { return load(unit(s, i.a)); });
  case Op::constant:
    return load_each(i, [&](S) RNNCORE_HOT { return V(T(constants_[i.a])); });
  case Op::keep_h:
    return load_each(i, [&](S s) RNNCORE_HOT { return share(s, span_.keep_h); });
  case Op::keep_state:
    return load_each(i, [&](S s) RNNCORE_HOT { return share(s, span_.keep_c); });
  case Op::dh:
    return load_each(i, [&](S s) RNNCORE_HOT { return dh(s); });
  case Op::dstate:
    return load_each(i, [&](S s) RNNCORE_HOT { return s.from(span_.dc[s.row] + i.a * H_); });
  case Op::dmiddle:
    return load_each(i, [&](S s) RNNCORE_HOT { return s.from(span_.d_middle); });

  case Op::keep_slot:
    if (!span_.keep_gates) return;
    [[fallthrough]];
  case Op::set_slot:
    return store_each(i, [&](S s, V v) RNNCORE_HOT { s.set_slot(i.to, v); });
  case Op::new_h:
    return store_each(i, [&](S s, V v) RNNCORE_HOT { s.put(span_.h, v); });
  case Op::new_state:
    return store_each(i, [&](S s, V v) RNNCORE_HOT { s.put(span_.c[s.row] + i.to * H_, v); });
  case Op::middle:
    return store_each(i, [&](S s, V v) RNNCORE_HOT { s.put(span_.middle, v); });
  case Op::d_old_h:
    return put_back(i, span_.direct, 0);
  case Op::d_old_state:
    return put_back(i, span_.dc_prev, i.to * H_);
  case Op::d_unit:
    return store_each(i, [&](S s, V v) RNNCORE_HOT { add_unit(s, v, i.to); });
  case Op::add:
    return map2(i, [](V a, V b) RNNCORE_HOT { return a + b; });
  case Op::subtract:
    return map2(i, [](V a, V b) RNNCORE_HOT { return a - b; });
  case Op::multiply:
    return map2(i, [](V a, V b) RNNCORE_HOT { return a * b; });
  case Op::divide:
    return map2(i, [](V a, V b) RNNCORE_HOT { return a / b; });
  case Op::maximum: // of NaN and a number NaN, and so is the other
    return map2(i, [](V a, V b) RNNCORE_HOT { return select_le(a, b, b, select_le(b, a, a, a + b)); });
  case Op::minimum:
    return map2(i, [](V a, V b) RNNCORE_HOT { return select_le(a, b, a, select_le(b, a, b, a + b)); });
  case Op::negative:
    return map(i, [](V a) RNNCORE_HOT { return -a; });
  case Op::absolute:
    return map(i, [](V a) RNNCORE_HOT { return -minus_abs(a); });
  case Op::reciprocal:
    return map(i, [](V a) RNNCORE_HOT { return V(T(1)) / a; });
  case Op::fma:
    return map3(i, [](V a, V b, V c) RNNCORE_HOT { return rnncore::RNNCORE_LEVEL::fma(a, b, c); });
  case Op::fnma:
    return map3(i, [](V a, V b, V c) RNNCORE_HOT { return rnncore::RNNCORE_LEVEL::fma(-a, b, c); });
  case Op::exp:
    return map_pairs(i, [](Pair<T> a) RNNCORE_HOT { return exp_of(a); });
  case Op::sigmoid:
    return map_pairs(i, [](Pair<T> a) RNNCORE_HOT { return Sigmoid::value(a); });
  case Op::tanh:
    return map_pairs(i, [](Pair<T> a) RNNCORE_HOT { return Tanh::value(a); });
  case Op::relu:
    return map(i, [](V a) RNNCORE_HOT { return Relu::value(a); });
  case Op::sigmoid_slope:
    return map(i, [](V y) RNNCORE_HOT { return Sigmoid::slope(y); });
  case Op::tanh_slope:
    return map(i, [](V y) RNNCORE_HOT { return Tanh::slope(y); });
  case Op::relu_slope:
    return map(i, [](V y) RNNCORE_HOT { return Relu::slope(y); });
  case Op::sigmoid_back:
    return map2(i, [](V d, V y) RNNCORE_HOT { return d * Sigmoid::slope(y); });
  case Op::tanh_back:
    return map2(i, [](V d, V y) RNNCORE_HOT { return d * Tanh::slope(y); });
  case Op::select_le:
    return map4(i, [](V a, V b, V c, V d)
                       RNNCORE_HOT { return rnncore::RNNCORE_LEVEL::select_le(a, b, c, d); });
  default:
    return execute_rare(i);
  }
}

template <class T, bool back>
void Machine<T, back>::execute_rare(const Instruction& i) {
  using Op = CellOperation;
  switch (i.operation) {
  case Op::scalar:
    return load_each(i, [&](S s) RNNCORE_HOT { return V(span_.x[s.row][scalars_ + i.a]); });
  case Op::vector:
    return load_each(i, [&](S s) RNNCORE_HOT { return s.from(span_.x[s.row] + vectors_ + i.a * H_); });
  case Op::d_scalar:
    return store_each(i, [&](S s, V v) RNNCORE_HOT { add_scalar(s, v, i.to); });
  case Op::d_vector:
    return store_each(i, [&](S s, V v) RNNCORE_HOT { put_vector(s, v, i.to); });
  case Op::sqrt:
    return map(i, [](V a) RNNCORE_HOT { return V(packets::psqrt(a.p)); });
  case Op::log:
    return map_lanes(i, [](T a) RNNCORE_HOT { return logarithm(a); });
  case Op::sin:
    return map_lanes(i, [](T a) RNNCORE_HOT { return sine(a); });
  case Op::cos:
    return map_lanes(i, [](T a) RNNCORE_HOT { return cosine(a); });
  case Op::softplus: {
    const Activation softplus{ActivationKind::softplus, 0, 0};
    return map(i, [&](V a) RNNCORE_HOT { return value_of(softplus, a); });
  }
  case Op::select_lt: // what is not comparable goes the other way
    return map4(i, [](V a, V b, V c, V d) RNNCORE_HOT {
      return rnncore::RNNCORE_LEVEL::select_le(b, a, d, rnncore::RNNCORE_LEVEL::select_le(a, b, c, d));
    });
  case Op::activation:
    return map(i, [&](V a) RNNCORE_HOT { return value_of(activation(i), a); });
  case Op::activation_slope:
    return map(i, [&](V y) RNNCORE_HOT { return slope_of(activation(i), y); });
  default:
    return; // there is no other
  }
}

template <class T, bool back, Index S>
void own_steps(const Layout<T>& at, const Span<T>& span, const Extent& extent) {
  const OwnCell& own = *at.plan.own;
  Machine<T, back> machine(at, span, back ? own.backward[S] : own.forward[S], S + 1 == own.phases);
  for_each_place(at, extent.panels, span.gates, extent.chunk_rows, [&](const Place<T>& place) RNNCORE_HOT {
    for (Index r = extent.first; r < extent.first + extent.rows; ++r) machine.add({place, r});
  });
  machine.finish();
}

} // namespace

template <class T>
constinit const Steps<T> OwnSteps<T>::value = {{own_steps<T, false, 0>, own_steps<T, false, 1>},
                                               {own_steps<T, true, 0>, own_steps<T, true, 1>}};

template struct OwnSteps<float>;
template struct OwnSteps<double>;

} // namespace rnncore::RNNCORE_LEVEL
