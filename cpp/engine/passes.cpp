#include "passes.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

#include "pieces.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// What a further thread has to gain, in operations: for a call, to be woken; for a step, to be waited for.
constexpr double least_work = 1e6, least_step_work = 2e5;

// Rows of a part: enough to fill the kernels' tiles, and to pay for reading the recurrent weights if they
// come from beyond the core's own cache.
constexpr Index few_rows = 8, many_rows = 32, own_cache = 1 << 20;

// Nodes of a part of a forest.
constexpr Index few_nodes = 1024;

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

/// Row b of the states `to` becomes the one that sequences start anew from, null: zero.
template <class T>
void start(const T* from, T* to, Index width, Index b) {
  for (Index j = 0; j < width; ++j) to[b * width + j] = from ? from[j] : T(0);
}

} // namespace

template <class T>
Passes<T>::Passes(const CellKernels<T>& cell, Shape shape, const CellOptions& options, bool plain,
                  const std::vector<std::vector<Weights<const T>>>& weights)
    : cell_(cell), shape_(shape), options_(options), plain_(plain),
      sizes_(cell.packing.sizes(cell.packing.cell, shape)) {
  for (const auto& direction : weights)
    weights_.push_back(std::make_unique<WatchedWeights<T>>(cell_.packing, shape_, direction));
}

template <class T>
double Passes<T>::step_work(Index rows) const {
  const Index recurrent = cell_.has_recurrent_weights ? shape_.depth * shape_.output : 0;
  return 2.0 * double(rows * cell_.packing.gates * shape_.hidden) * double(shape_.input + recurrent);
}

template <class T>
Index Passes<T>::least_rows() const {
  const Index bytes = cell_.packing.gates * shape_.hidden * shape_.hidden * Index(sizeof(T));
  return bytes > own_cache ? many_rows : few_rows;
}

template <class T>
Index Passes<T>::parts(Grid grid, bool training) const {
  const Index most = grid.batch / least_rows();
  if (training) return std::clamp<Index>(most / 2, std::clamp<Index>(most, 1, 2), 8);
  if (step_work(grid.batch) * double(grid.time) <= least_work) return 1;
  return std::max<Index>(std::min(rounded(num_threads(), directions()) / directions(), most), 1);
}

template <class T>
std::vector<Part> Passes<T>::cut(const ForwardArrays<T>& a, Index parts) const {
  const Split split(a.grid.batch, a.lengths, parts);
  std::vector<Part> cut;
  cut.reserve(split.parts() * directions());
  for (Index d = 0; d < directions(); ++d)
    for (Index p = 0; p < split.parts(); ++p) {
      cut.emplace_back(d, OwnSchedule(a.grid, a.lengths, d == 1, split.begin(p), split.size(p),
                                      a.restarts.resets, a.states));
    }
  return cut;
}

/// Trees in runs of about the same number of nodes.
template <class T>
std::vector<Part> Passes<T>::cut_forest(const Forest& f) const {
  const Index parts = std::clamp<Index>(std::min(f.rows / few_nodes, f.trees), 1, 8);
  const Index most = cell_.chunk_nodes(cell_.packing.cell, shape_);
  std::vector<Part> cut;
  Index leaves = 0;
  for (Index p = 0, tree = 0; p < parts; ++p) {
    const Index begin = f.begin[tree], wanted = f.rows * (p + 1) / parts;
    while (tree < f.trees && (f.begin[tree + 1] <= wanted || p + 1 == parts)) ++tree;
    cut.emplace_back(0, OwnSchedule(f, begin, f.begin[tree], leaves, most));
    leaves += cut.back().schedule.view().leaves;
  }
  return cut;
}

/// Operations of a node: every weight serves once, and an activation takes about so many.
template <class T>
double Passes<T>::node_work() const {
  return 2.0 * double(sizes_.gradients) + 64.0 * double(cell_.packing.gates * shape_.hidden * shape_.depth);
}

/// Nodes of one of the parts that may be gone through without a pause.
template <class T>
Index Passes<T>::most_nodes(Index parts) const {
  return Index(std::min(piece_work() / (node_work() * double(parts)), 1e9)) + 1;
}

/// Gives each part its place on the tape; returns the size of all.
template <class T>
Index Passes<T>::reserve(std::vector<Part>& parts, Index steps) const {
  Index tape = 0;
  for (Part& part : parts) {
    const Schedule s = part.schedule.view();
    if (steps) part.cut(steps, cell_.chunk_nodes(cell_.packing.cell, shape_));
    Index nodes = 0;
    for (std::size_t i = 1; i < part.cuts.size(); ++i)
      nodes = std::max(nodes, s.begin[part.cuts[i]] - s.begin[part.cuts[i - 1]]);
    part.tape = tape;
    tape += rounded(nodes * sizes_.tape, 16);
  }
  return tape;
}

/// Where the tape of the waves from this one on begins.
template <class T>
T* Passes<T>::tape_of(const Record<T>& r, const Part& part, Index wave) const {
  const Index* const begin = part.schedule.view().begin;
  return r.tape.template as<T>() + part.tape + (begin[wave] - begin[part.cut_before(wave)]) * sizes_.tape;
}

/// f(walk, team, work space) for the walks of all of them, with a pause after each round: those of about
/// `rows` rows a step go side by side if they keep the threads busy, else one by one, each cut by hidden
/// units if a step is long enough for that.
template <class T>
template <class F>
void Passes<T>::share(const std::vector<Way>& ways, Index rows, Index time, Index bytes, F f) const {
  const double step = step_work(rows);
  const Index tasks = Index(ways.size());
  const Index threads = step * double(tasks * time) < least_work ? 1 : num_threads();
  const Index by_units =
      step < least_step_work ? 1 : std::min(cell_.shares(cell_.packing.cell, shape_), threads);
  Index rounds = 0;
  for (const Way& way : ways) rounds = std::max(rounds, way.rounds());
  for (Index round = 0; round < rounds; ++round) {
    if (round > 0) Watch::pause();
    const auto walk = [&](Index i, const Team& team, void* work) {
      bool first = true;
      ways[i].for_each(round, [&](const Walk& walk) {
        if (!std::exchange(first, false)) team.wait(team.barrier); // until nobody needs the work space
        f(walk, team, work);
      });
    };
    if (tasks >= threads || tasks >= by_units)
      side_by_side(tasks, std::min(tasks, threads), rounded(bytes, 64), walk);
    else
      one_by_one(tasks, by_units, bytes, walk);
  }
}

template <class T>
Pinned<T> Passes<T>::weights(bool transposed) {
  Pinned<T> pinned;
  for (const auto& watched : weights_) pinned.push_back(watched->snapshot(transposed));
  return pinned;
}

template <class T>
void Passes<T>::look_again() {
  for (const auto& watched : weights_) watched->look_again();
}

/// Whether a call is a single step, one not worth a second thread and with nothing to remember.
template <class T>
void Passes<T>::freeze() {
  for (const auto& weights : weights_) weights->freeze();
}

template <class T>
bool Passes<T>::is_step(const ForwardArrays<T>& a) const {
  return a.grid.time == 1 && a.grid.batch > 0 && directions() == 1 && !a.lengths && !a.c && !a.forest &&
         step_work(a.grid.batch) <= least_work;
}

template <class T>
void Passes<T>::step(const ForwardArrays<T>& a, const Snapshot<T>& weights) {
  const Index batch = a.grid.batch;
  for (Index b = 0; a.restarts.resets && b < batch; ++b) {
    if (!a.restarts.resets[b]) continue;
    const Index row = a.states ? a.states[b] : b;
    start(a.restarts.h, a.h, shape_.output, row);
    if (a.running_c) start(a.restarts.c, a.running_c, c_columns(shape_), row);
  }
  std::unique_ptr<Step<T>> step = steps_.take(batch, a.masks);
  if (!step) {
    const Part none(0, OwnSchedule({0, 0, false}, nullptr, false, nullptr, 0));
    step = std::make_unique<Step<T>>(cell_, forward_call(a, none, weights), a.masks);
  }
  step->run({batch, a.x, a.y, a.h, a.running_c, a.states}, weights);
  steps_.give(std::move(step));
}

template <class T>
void Passes<T>::forward(const ForwardArrays<T>& a, Record<T>* record, Index steps,
                        const Pinned<T>* pinned) {
  if (!record && is_step(a)) return step(a, pinned ? *pinned->front() : *weights_.front()->snapshot(false));
  Record<T> passing;
  Record<T>& r = record ? *record : passing;
  r.parts = a.forest ? cut_forest(*a.forest) : cut(a, parts(a.grid, record != nullptr));
  r.replays = record && steps > 0;
  r.weights = pinned ? *pinned : weights(record != nullptr);
  ForwardArrays<T> arrays = a;
  if (record) {
    r.tape = take_spare(std::size_t(reserve(r.parts, steps)) * sizeof(T));
    if (cell_.has_cell_state && !a.forest) {
      r.c = take_spare(std::size_t(a.grid.rows() * directions() * c_columns(shape_)) * sizeof(T));
      arrays.c = r.c.template as<T>();
    }
  }
  const auto call_for = [&](const Part& part, Index wave, bool records) {
    Forward<T> call = forward_call(arrays, part, *r.weights[part.direction]);
    if (records) call.tape = tape_of(r, part, wave);
    return call;
  };
  const Index tasks = Index(r.parts.size()), rows = a.grid.batch * directions() / tasks;
  const Index most = most_nodes(tasks);
  Index bytes = 0;
  std::vector<Way> ways(r.parts.size());
  for (Index i = 0; i < tasks; ++i) {
    bytes = std::max(bytes,
                     cell_.forward_work(cell_.packing.cell, call_for(r.parts[i], 0, record && !r.replays)));
    r.parts[i].plan_pauses(most, cell_.chunk_nodes(cell_.packing.cell, shape_));
    r.parts[i].go(i, record != nullptr, r.replays, most, ways[i]);
  }

  share(ways, rows, a.grid.time, bytes, [&](Walk walk, const Team& team, void* work) {
    const Part& part = r.parts[walk.part];
    Forward<T> call = call_for(part, walk.wave, walk.kind == Walk::recorded);
    call.work = work;
    call.wave = walk.wave;
    call.end = walk.end;
    cell_.forward(cell_.packing.cell, call, team);
    if (team.rank != 0 || a.forest || walk.end < call.schedule.waves) return;
    const Index P = shape_.output, C = c_columns(shape_), state = part.direction * a.grid.batch;
    part.schedule.for_each_last_row([&](Index to, Index row) {
      if (row < 0) return;
      std::copy_n(call.y.base + row * call.y.stride, P, a.h + (state + to) * P);
      if (call.c.base) std::copy_n(call.c.base + row * call.c.stride, C, a.running_c + (state + to) * C);
    });
  });
}

/// What forward and backward of a part are given, but for the arrays.
template <class T>
Call<T> Passes<T>::call_of(Grid grid, const MaskArrays<T>& masks, const Restarts<T>& restarts,
                           const Part& part) const {
  const Index D = directions(), H = shape_.hidden, P = shape_.output;
  const auto rows = [&](const T* base) {
    const Index stride = masks.same_for_all_rows ? 0 : D * H;
    return base ? Rows<const T>{base + part.direction * H, stride} : Rows<const T>{nullptr, 0};
  };
  Call<T> call{};
  call.shape = shape_;
  call.schedule = part.schedule.view();
  call.end = call.schedule.waves;
  if (restarts.h) call.anew_h = restarts.h + part.direction * P;
  if (restarts.c) call.anew_c = restarts.c + part.direction * c_columns(shape_);
  if (plain_ && !masks.any()) return call;
  call.options = &options_;
  if (masks.state) call.masks.state = {masks.state + part.direction * grid.batch * P, P};
  call.masks.update = rows(masks.update);
  call.masks.keep_h = rows(masks.keep_h);
  call.masks.keep_c = rows(masks.keep_c);
  return call;
}

template <class T>
Forward<T> Passes<T>::forward_call(const ForwardArrays<T>& a, const Part& part,
                                   const Snapshot<T>& weights) const {
  const Index D = directions(), d = part.direction, P = shape_.output, C = c_columns(shape_);
  Forward<T> call{call_of(a.grid, a.masks, a.restarts, part), {}};
  call.packed = weights.packed();
  call.x = {a.x, x_columns(shape_)};
  call.y = {a.y + d * P, D * P};
  call.first = {a.h + d * a.grid.batch * P, P};
  if (a.running_c) call.running_c = {a.running_c + d * a.grid.batch * C, C};
  if (a.c) call.c = {a.c + d * C, D * C};
  call.offer = {a.offer, shape_.hidden};
  return call;
}

template <class T>
void Passes<T>::backward(const BackwardArrays<T>& a, Grid grid, Record<T>& r) {
  const Index parts = Index(r.parts.size()) / directions();
  Index bytes = 0;
  for (const Part& part : r.parts) {
    bytes = std::max(bytes, cell_.backward_work(cell_.packing.cell, backward_call(a, grid, r, part)));
    if (part.cuts.size() > 2)
      bytes = std::max(bytes, cell_.forward_work(cell_.packing.cell, replay(a, grid, r, part)));
  }
  const Index packed = rounded(sizes_.gradients, 16);
  Buffer sums = take_spare(std::size_t(packed) * r.parts.size() * sizeof(T));

  // Both directions of a part add to the same rows of dx: they stay together, and in order.
  std::vector<Way> ways(parts);
  for (Index i = 0; i < Index(r.parts.size()); ++i)
    r.parts[i].go_back(i, most_nodes(Index(r.parts.size())), ways[i % parts]);

  Record<T> used = std::exchange(r, {}); // from here on the tape is written over
  share(ways, grid.batch / parts, grid.time, bytes, [&](Walk walk, const Team& team, void* work) {
    walk_back(a, grid, used, walk, sums.template as<T>() + walk.part * packed, team, work);
  });
  if (a.weights) add_gradients(a, sums.template as<T>(), parts, packed);
  give_spare(std::move(sums));
  give_spare(std::move(used.tape));
  give_spare(std::move(used.c));
}

/// The sums of each direction's parts, `packed` numbers each, added to the weights' gradients.
template <class T>
void Passes<T>::add_gradients(const BackwardArrays<T>& a, T* sums, Index parts, Index packed) {
  const double moved = double(packed) * double(parts * directions());
  const std::lock_guard lock(adding_);
  on_team(moved < least_step_work ? 1 : std::min(cell_.shares(cell_.packing.cell, shape_), num_threads()),
          [&](const Team& team) {
            for (Index d = 0; d < directions(); ++d)
              cell_.add_gradients(cell_.packing.cell, shape_, sums + d * parts * packed, parts, packed,
                                  a.weights[d], team);
          });
}

template <class T>
Backward<T> Passes<T>::backward_call(const BackwardArrays<T>& a, Grid grid, const Record<T>& r,
                                     const Part& part) const {
  const Index D = directions(), d = part.direction, P = shape_.output, C = c_columns(shape_);
  const Index state = d * grid.batch * P, cell_state = d * grid.batch * C;
  Backward<T> call{};
  static_cast<Call<T>&>(call) = call_of(grid, a.masks, a.restarts, part);
  call.packed = r.weights[d]->packed();
  call.transposed = r.weights[d]->transposed.template as<void>();
  call.x = {a.x, x_columns(shape_)};
  call.y = {a.y + d * P, D * P};
  call.first = {a.first_h + state, P};
  if (a.dc) {
    if (a.first_c) call.first_c = {a.first_c + cell_state, C};
    call.c = {(a.c ? a.c : r.c.template as<T>()) + d * C, D * C};
    call.dc = {a.dc + cell_state, C};
  }
  call.tape = r.tape.template as<T>() + part.tape;
  if (a.dy) call.dy = {a.dy + d * P, D * P};
  call.dh = {a.dh + state, P};
  if (a.restarts.dh) call.d_anew_h = {a.restarts.dh + state, P};
  if (a.restarts.dc) call.d_anew_c = {a.restarts.dc + cell_state, C};
  if (a.dx) call.dx = {a.dx, x_columns(shape_)};
  call.offer = {a.offer, shape_.hidden};
  call.d_offer = {a.d_offer, shape_.hidden};
  call.add_dx = d > 0;
  call.wants_gradients = a.weights != nullptr;
  return call;
}

/// Forward once more, over states that are there already: what it is for is the tape.
template <class T>
Forward<T> Passes<T>::replay(const BackwardArrays<T>& a, Grid grid, const Record<T>& r,
                             const Part& part) const {
  ForwardArrays<T> arrays{};
  arrays.grid = grid;
  arrays.x = a.x;
  arrays.y = a.y;
  arrays.h = a.first_h;
  arrays.running_c = a.first_c;
  arrays.c = a.c ? a.c : r.c.template as<T>();
  arrays.masks = a.masks;
  arrays.restarts = a.restarts;
  Forward<T> call = forward_call(arrays, part, *r.weights[part.direction]);
  call.tape = r.tape.template as<T>() + part.tape;
  return call;
}

template <class T>
void Passes<T>::walk_back(const BackwardArrays<T>& a, Grid grid, const Record<T>& r, Walk walk,
                          T* gradients, const Team& team, void* work) const {
  const Part& part = r.parts[walk.part];
  const auto prepare = [&](auto call) {
    call.tape = tape_of(r, part, walk.wave);
    call.work = work;
    call.wave = walk.wave;
    call.end = walk.end;
    return call;
  };
  if (walk.kind == Walk::recorded)
    return cell_.forward(cell_.packing.cell, prepare(replay(a, grid, r, part)), team);
  Backward<T> call = prepare(backward_call(a, grid, r, part));
  call.gradients = gradients;
  cell_.backward(cell_.packing.cell, call, team);
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
