#include "passes.hpp"

#include <algorithm>
#include <atomic>

#include "threads.hpp"

namespace rnncore {
namespace {

// What a further thread has to gain, in operations: for a call, to be woken; for a step, to be waited for.
constexpr double least_work = 1e6, least_step_work = 2e5;

// Rows of a part: enough to fill the kernels' tiles, and to pay for reading the recurrent weights if they
// come from beyond the core's own cache.
constexpr Index few_rows = 8, many_rows = 32, own_cache = 1 << 20;

constexpr Team alone{0, 1, [](void*) {}, nullptr};

Index rounded(Index n, Index unit) { return (n + unit - 1) / unit * unit; }

/// Scratch of the calling thread, kept from call to call.
char* work_space(Index bytes) {
  thread_local Buffer buffer;
  return static_cast<char*>(buffer.reserve(std::size_t(bytes)));
}

/// Each task on one thread: f(task, team of one, its work space).
template <class F>
void side_by_side(Index tasks, Index threads, Index bytes, F f) {
  char* work = work_space(bytes * threads);
  std::atomic<Index> next{0};
  on_team(threads, [&](const Team& team) {
    for (Index i; (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
      f(i, alone, work + team.rank * bytes);
  });
}

/// Each task on all threads.
template <class F>
void one_by_one(Index tasks, Index threads, Index bytes, F f) {
  char* work = work_space(bytes);
  for (Index i = 0; i < tasks; ++i) on_team(threads, [&](const Team& team) { f(i, team, work); });
}

} // namespace

template <class T>
Passes<T>::Passes(const Cell<T>& cell, Shape shape, const std::vector<Weights<const T>>& weights)
    : cell_(cell), shape_(shape), sizes_(cell.packing.sizes(shape)) {
  for (const Weights<const T>& direction : weights)
    weights_.push_back(std::make_unique<WatchedWeights<T>>(cell_.packing, shape_, direction));
}

template <class T>
double Passes<T>::step_work(Index rows) const {
  return 2.0 * double(rows * cell_.packing.gates * shape_.hidden) * double(shape_.input + shape_.hidden);
}

template <class T>
Index Passes<T>::least_rows() const {
  const Index bytes = cell_.packing.gates * shape_.hidden * shape_.hidden * Index(sizeof(T));
  return bytes > own_cache ? many_rows : few_rows;
}

/// Parts of a batch. In training they depend on sizes alone: the parts' weight gradients are added up one
/// by one, and must be the same ones for any number of threads. Without them no sum goes across rows, and
/// the parts are as many as the threads like.
template <class T>
std::vector<Part> Passes<T>::cut(const ForwardArrays<T>& a, bool training) const {
  const Index most = a.grid.batch / least_rows();
  Index parts = 1;
  if (training)
    parts = std::clamp<Index>(most / 2, std::min<Index>(most, 2), 8);
  else if (step_work(a.grid.batch) * double(a.grid.time) > least_work)
    parts = std::min(rounded(num_threads(), directions()) / directions(), most);

  const Deal deal(a.grid.batch, a.lengths, std::max<Index>(parts, 1));
  std::vector<Part> cut;
  cut.reserve(deal.parts() * directions());
  Index tape = 0;
  for (Index d = 0; d < directions(); ++d)
    for (Index p = 0; p < deal.parts(); ++p) {
      cut.push_back({d, SequenceSchedule(a.grid, a.lengths, d == 1, deal.begin(p), deal.size(p)), tape});
      tape += rounded(cut.back().schedule.view().nodes * sizes_.tape, 16);
    }
  return cut;
}

/// Tasks of about `rows` rows a step: side by side if they keep the threads busy, else each of them cut by
/// hidden units if a step is long enough for that.
template <class T>
template <class F>
void Passes<T>::share(Index tasks, Index rows, Index time, Index bytes, F f) const {
  const double step = step_work(rows);
  const Index threads = step * double(tasks * time) < least_work ? 1 : num_threads();
  const Index by_units = step < least_step_work ? 1 : std::min(cell_.shares(shape_), threads);
  if (tasks >= threads || tasks >= by_units)
    side_by_side(tasks, std::min(tasks, threads), rounded(bytes, 64), f);
  else
    one_by_one(tasks, by_units, bytes, f);
}

template <class T>
void Passes<T>::forward(const ForwardArrays<T>& a, Record<T>* record) {
  Record<T> passing;
  Record<T>& r = record ? *record : passing;
  r.parts = cut(a, record != nullptr);
  for (const auto& watched : weights_) r.weights.push_back(watched->snapshot(record != nullptr));
  Index bytes = 0, nodes = 0;
  for (const Part& part : r.parts) {
    bytes = std::max(bytes, cell_.forward_work(shape_, part.schedule.view()));
    nodes = std::max(nodes, part.schedule.view().nodes);
  }
  ForwardArrays<T> arrays = a;
  if (record) {
    r.tape = take_spare(std::size_t(r.parts.back().tape + nodes * sizes_.tape) * sizeof(T));
    if (cell_.has_cell_state) {
      r.c = take_spare(std::size_t(a.grid.time * a.grid.batch * directions() * shape_.hidden) * sizeof(T));
      arrays.c = r.c.template as<T>();
    }
  }

  const Index tasks = Index(r.parts.size()), rows = a.grid.batch * directions() / tasks;
  share(tasks, rows, a.grid.time, bytes, [&](Index i, const Team& team, void* work) {
    const Part& part = r.parts[i];
    T* tape = record ? r.tape.template as<T>() + part.tape : nullptr;
    forward_part(arrays, part, *r.weights[part.direction], tape, team, work);
  });
}

template <class T>
void Passes<T>::forward_part(const ForwardArrays<T>& a, const Part& part, const Snapshot<T>& weights,
                             T* tape, const Team& team, void* work) const {
  const Index D = directions(), H = shape_.hidden, state = part.direction * a.grid.batch * H;
  Forward<T> pass{};
  pass.shape = shape_;
  pass.schedule = part.schedule.view();
  pass.packed = weights.packed.template as<T>();
  pass.x = {a.x, shape_.input};
  pass.y = {a.y + part.direction * H, D * H};
  pass.first = {a.h + state, H};
  if (a.running_c) pass.running_c = {a.running_c + state, H};
  if (a.c) pass.c = {a.c + part.direction * H, D * H};
  pass.tape = tape;
  pass.work = work;
  cell_.forward(pass, team);

  if (team.rank != 0) return;
  part.schedule.for_each_last_row([&](Index b, Index row) {
    if (row < 0) return;
    std::copy_n(pass.y.base + row * D * H, H, a.h + state + b * H);
    if (a.c) std::copy_n(pass.c.base + row * D * H, H, a.running_c + state + b * H);
  });
}

template <class T>
void Passes<T>::backward(const BackwardArrays<T>& a, Grid grid, Record<T>& r) {
  const Index parts = Index(r.parts.size()) / directions();
  Index bytes = 0;
  for (const Part& part : r.parts)
    bytes = std::max(bytes, cell_.backward_work(shape_, part.schedule.view()));
  const Index packed = rounded(sizes_.packed, 16);
  Buffer sums = take_spare(std::size_t(packed) * r.parts.size() * sizeof(T));

  // Both directions of a part add to the same rows of dx: they stay together, and in order.
  share(parts, grid.batch / parts, grid.time, bytes, [&](Index i, const Team& team, void* work) {
    for (Index d = 0; d < directions(); ++d) {
      const Index j = d * parts + i;
      backward_part(a, grid, r, j, sums.template as<T>() + j * packed, team, work);
      team.wait(team.barrier);
    }
  });
  const double moved = double(packed) * double(r.parts.size());
  const std::lock_guard lock(adding_);
  on_team(moved < least_step_work ? 1 : std::min(cell_.shares(shape_), num_threads()),
          [&](const Team& team) {
            for (Index d = 0; d < directions(); ++d)
              cell_.add_gradients(shape_, sums.template as<T>() + d * parts * packed, parts, packed,
                                  a.weights[d], team);
          });
  give_spare(std::move(sums));
  give_spare(std::move(r.tape));
  give_spare(std::move(r.c));
}

template <class T>
void Passes<T>::backward_part(const BackwardArrays<T>& a, Grid grid, const Record<T>& r, Index index,
                              T* gradients, const Team& team, void* work) const {
  const Part& part = r.parts[index];
  const Index D = directions(), H = shape_.hidden, state = part.direction * grid.batch * H;
  Backward<T> pass{};
  pass.shape = shape_;
  pass.schedule = part.schedule.view();
  pass.packed_transposed = r.weights[part.direction]->transposed.template as<T>();
  pass.x = {a.x, shape_.input};
  pass.y = {a.y + part.direction * H, D * H};
  pass.first = {a.first_h + state, H};
  if (a.dc) {
    pass.first_c = {a.first_c + state, H};
    pass.c = {r.c.template as<T>() + part.direction * H, D * H};
    pass.dc = {a.dc + state, H};
  }
  pass.tape = r.tape.template as<T>() + part.tape;
  if (a.dy) pass.dy = {a.dy + part.direction * H, D * H};
  pass.dh = {a.dh + state, H};
  if (a.dx) pass.dx = {a.dx, shape_.input};
  pass.add_dx = part.direction > 0;
  pass.gradients = gradients;
  pass.work = work;
  cell_.backward(pass, team);
}

template <class T>
Buffer Passes<T>::take_spare(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  auto best = spare_.end();
  for (auto it = spare_.begin(); it != spare_.end(); ++it)
    if (best == spare_.end() || (it->bytes() >= bytes && it->bytes() < best->bytes()) ||
        (best->bytes() < bytes && it->bytes() > best->bytes()))
      best = it;
  if (best == spare_.end()) return Buffer(bytes);
  Buffer buffer = std::move(*best);
  spare_.erase(best);
  buffer.reserve(bytes);
  return buffer;
}

/// Kept for the next call: the three that one pair of passes needs.
template <class T>
void Passes<T>::give_spare(Buffer buffer) {
  const std::lock_guard lock(mutex_);
  if (buffer.bytes() && spare_.size() < 3) spare_.push_back(std::move(buffer));
}

template class Passes<float>;
template class Passes<double>;

} // namespace rnncore
