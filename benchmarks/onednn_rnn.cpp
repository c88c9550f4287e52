// oneDNN's recurrent layers driven directly, as a process that answers questions (see
// rnncore.commands.measure.serve):
//
//   about                                    version and instruction set
//   case CELL MODE T B I H FILE [WEIGHTS]    make a layer ready and run it once; FILE holds the numbers
//   time SECONDS                             the time a call takes
//   save FILE                                write the results
//
// Everything is made once: primitives, memory, and the weights in the layout that oneDNN asks for. Training
// is forward_training and backward with all gradients, added up over the calls as oneDNN does by default.
//
// WEIGHTS, for inference: bfloat16, then x, h and y are too; int8, with a scale for each gate row, then x
// is in 8 bits before the clock runs, with one scale and shift for all of it and h, known from the numbers.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "dnnl.hpp"

namespace {

using namespace dnnl;
using Dims = memory::dims;
using Desc = memory::desc;
using Tag = memory::format_tag;
using Args = std::unordered_map<int, memory>;

struct Case {
  std::string cell, mode;
  long steps, batch, inputs, hidden;
  std::string kind = {};

  bool int8() const { return kind == "int8"; }
  bool bfloat16() const { return kind == "bfloat16"; }
  bool lstm() const { return cell == "lstm"; }
  bool training() const { return mode == "training"; }
  long gates() const { return lstm() ? 4 : cell == "gru" ? 3 : 1; }
  long biases() const { return cell == "gru" ? 4 : gates(); }
};

using Type = memory::data_type;

Desc plain(const Dims& dims, Tag tag) { return {dims, Type::f32, tag}; }

Desc in_type(const Desc& of, Type type, Tag tag) { return {of.get_dims(), type, tag}; }

/// Descriptions of a layer's arrays: a layer and a direction stand before the rest of those of the cell.
struct Shapes {
  Desc x, y, state, weights, recurrent, bias;
  Desc any_weights, any_recurrent;
  Desc given, carried, out; ///< x, h and y as the layer takes and gives them

  explicit Shapes(const Case& c)
      : x(plain({c.steps, c.batch, c.inputs}, Tag::tnc)), y(plain({c.steps, c.batch, c.hidden}, Tag::tnc)),
        state(plain({1, 1, c.batch, c.hidden}, Tag::ldnc)),
        weights(plain({1, 1, c.inputs, c.gates(), c.hidden}, Tag::ldigo)),
        recurrent(plain({1, 1, c.hidden, c.gates(), c.hidden}, Tag::ldigo)),
        bias(plain({1, 1, c.biases(), c.hidden}, Tag::ldgo)),
        any_weights(in_type(weights, c.int8() ? Type::s8 : numbers(c), Tag::any)),
        any_recurrent(in_type(recurrent, c.int8() ? Type::s8 : numbers(c), Tag::any)),
        given(in_type(x, c.int8() ? Type::u8 : numbers(c), Tag::tnc)),
        carried(in_type(state, numbers(c), Tag::ldnc)), out(in_type(y, numbers(c), Tag::tnc)) {}

  static Type numbers(const Case& c) { return c.bfloat16() ? Type::bf16 : Type::f32; }
};

/// A primitive of any cell, and the memory it works on.
struct Pass {
  primitive_desc_base description;
  primitive run;
  Args args;

  Desc wanted(int argument) const { return description.query_md(query::exec_arg_md, argument); }
};

class Layer {
public:
  Layer(const engine& cpu, const Case& c, const std::string& file) : cpu_(cpu), stream_(cpu), case_(c) {
    const Shapes s(c);
    std::ifstream in(file, std::ios::binary);
    const memory x = read(in, s.x), dy = read(in, s.y);
    const memory weights = read(in, s.weights), recurrent = read(in, s.recurrent);
    const memory bias = read(in, s.bias);
    if (!in) throw std::runtime_error("the file of numbers is too short");

    if (c.int8()) choose_scales(x, weights, recurrent);
    make_passes(s);
    give(DNNL_ARG_SRC_LAYER, reordered(x, s.given, attributes_));
    give_in_its_layout(DNNL_ARG_WEIGHTS_LAYER, weights);
    give_in_its_layout(DNNL_ARG_WEIGHTS_ITER, recurrent);
    give(DNNL_ARG_BIAS, bias);
    give(DNNL_ARG_DST_LAYER, zeros(s.out));
    for (int argument : {DNNL_ARG_SRC_ITER, DNNL_ARG_DST_ITER}) give(argument, zeros(s.carried));
    if (c.lstm())
      for (int argument : {DNNL_ARG_SRC_ITER_C, DNNL_ARG_DST_ITER_C}) give(argument, zeros(s.state));
    if (!c.training()) return;

    give(DNNL_ARG_WORKSPACE, memory(forward_.wanted(DNNL_ARG_WORKSPACE), cpu_));
    backward_.args[DNNL_ARG_DIFF_DST_LAYER] = dy;
    for (int argument : gradients()) backward_.args[argument] = zeros(backward_.wanted(argument));
    backward_.args[DNNL_ARG_DIFF_DST_ITER] = zeros(s.state);
    if (c.lstm()) backward_.args[DNNL_ARG_DIFF_DST_ITER_C] = zeros(s.state);
  }

  void run() {
    forward_.run.execute(stream_, forward_.args);
    if (case_.training()) backward_.run.execute(stream_, backward_.args);
    stream_.wait();
  }

  /// y, h and c, then the gradients in the order of gradients(), each in its plain layout.
  void save(const std::string& file) {
    if (case_.training())
      for (int argument : gradients()) clear(backward_.args.at(argument));
    run();
    const Shapes s(case_);
    std::ofstream out(file, std::ios::binary);
    write(out, forward_.args.at(DNNL_ARG_DST_LAYER), s.y);
    write(out, forward_.args.at(DNNL_ARG_DST_ITER), s.state);
    if (case_.lstm()) write(out, forward_.args.at(DNNL_ARG_DST_ITER_C), s.state);
    if (!case_.training()) return;
    const std::map<int, Desc> layouts{{DNNL_ARG_DIFF_SRC_LAYER, s.x},
                                      {DNNL_ARG_DIFF_SRC_ITER, s.state},
                                      {DNNL_ARG_DIFF_SRC_ITER_C, s.state},
                                      {DNNL_ARG_DIFF_WEIGHTS_LAYER, s.weights},
                                      {DNNL_ARG_DIFF_WEIGHTS_ITER, s.recurrent},
                                      {DNNL_ARG_DIFF_BIAS, s.bias}};
    for (int argument : gradients()) write(out, backward_.args.at(argument), layouts.at(argument));
  }

private:
  std::vector<int> gradients() const {
    std::vector<int> all{DNNL_ARG_DIFF_SRC_LAYER, DNNL_ARG_DIFF_SRC_ITER};
    if (case_.lstm()) all.push_back(DNNL_ARG_DIFF_SRC_ITER_C);
    all.insert(all.end(), {DNNL_ARG_DIFF_WEIGHTS_LAYER, DNNL_ARG_DIFF_WEIGHTS_ITER, DNNL_ARG_DIFF_BIAS});
    return all;
  }

  /// Scales for 8 bits: of x and h together, which oneDNN does not tell apart, and of each gate row.
  void choose_scales(const memory& x, const memory& weights, const memory& recurrent) {
    const auto numbers = [](const memory& of) { return static_cast<const float*>(of.get_data_handle()); };
    float least = -1, most = 1;
    for (long i = 0; i < case_.steps * case_.batch * case_.inputs; ++i) {
      least = std::min(least, numbers(x)[i]);
      most = std::max(most, numbers(x)[i]);
    }
    const float scale = 255 / (most - least);
    attributes_.set_rnn_data_qparams(scale, std::round(-least * scale));

    const long rows = case_.gates() * case_.hidden;
    std::vector<float> scales(std::size_t(rows), 1e-9F);
    const auto enlarge = [&](const float* of, long inputs) {
      for (long i = 0; i < inputs * rows; ++i) {
        float& largest = scales[std::size_t(i % rows)];
        largest = std::max(largest, std::abs(of[i]));
      }
    };
    enlarge(numbers(weights), case_.inputs);
    enlarge(numbers(recurrent), case_.hidden);
    for (float& value : scales) value = 127 / value;
    attributes_.set_rnn_weights_qparams((1 << 3) + (1 << 4), scales); // gates and units
  }

  void make_passes(const Shapes& s) {
    if (case_.lstm())
      make_lstm(s);
    else if (case_.cell == "gru")
      make_gru(s);
    else
      make_vanilla(s);
  }

  prop_kind kind() const {
    return case_.training() ? prop_kind::forward_training : prop_kind::forward_inference;
  }

  void make_lstm(const Shapes& s) {
    const lstm_forward::primitive_desc ahead(cpu_, kind(), direction, s.given, s.carried, s.state,
                                             s.any_weights, s.any_recurrent, s.bias, s.out, s.carried,
                                             s.state, attributes_);
    forward_ = {ahead, lstm_forward(ahead), {}};
    if (!case_.training()) return;
    const lstm_backward::primitive_desc back(cpu_, prop_kind::backward, direction, s.x, s.state, s.state,
                                             s.any_weights, s.any_recurrent, s.bias, s.y, s.state, s.state,
                                             s.x, s.state, s.state, s.any_weights, s.any_recurrent, s.bias,
                                             s.y, s.state, s.state, ahead);
    backward_ = {back, lstm_backward(back), {}};
  }

  void make_gru(const Shapes& s) {
    const lbr_gru_forward::primitive_desc ahead(cpu_, kind(), direction, s.given, s.carried, s.any_weights,
                                                s.any_recurrent, s.bias, s.out, s.carried);
    forward_ = {ahead, lbr_gru_forward(ahead), {}};
    if (!case_.training()) return;
    const lbr_gru_backward::primitive_desc back(
        cpu_, prop_kind::backward, direction, s.x, s.state, s.any_weights, s.any_recurrent, s.bias, s.y,
        s.state, s.x, s.state, s.any_weights, s.any_recurrent, s.bias, s.y, s.state, ahead);
    backward_ = {back, lbr_gru_backward(back), {}};
  }

  void make_vanilla(const Shapes& s) {
    const auto tanh = algorithm::eltwise_tanh;
    const vanilla_rnn_forward::primitive_desc ahead(cpu_, kind(), tanh, direction, s.given, s.carried,
                                                    s.any_weights, s.any_recurrent, s.bias, s.out,
                                                    s.carried);
    forward_ = {ahead, vanilla_rnn_forward(ahead), {}};
    if (!case_.training()) return;
    const vanilla_rnn_backward::primitive_desc back(
        cpu_, prop_kind::backward, tanh, direction, s.x, s.state, s.any_weights, s.any_recurrent, s.bias,
        s.y, s.state, s.x, s.state, s.any_weights, s.any_recurrent, s.bias, s.y, s.state, ahead);
    backward_ = {back, vanilla_rnn_backward(back), {}};
  }

  /// Hands an argument to both passes.
  void give(int argument, const memory& value) {
    forward_.args[argument] = backward_.args[argument] = value;
  }

  /// Hands weights to each pass in the layout it prefers.
  void give_in_its_layout(int argument, const memory& value) {
    forward_.args[argument] = reordered(value, forward_.wanted(argument), attributes_);
    if (case_.training()) backward_.args[argument] = reordered(value, backward_.wanted(argument));
  }

  memory reordered(memory from, const Desc& layout, const primitive_attr& attributes = {}) {
    memory to(layout, cpu_);
    reorder(reorder::primitive_desc(cpu_, from.get_desc(), cpu_, layout, attributes))
        .execute(stream_, from, to);
    stream_.wait();
    return to;
  }

  static void clear(const memory& array) {
    std::memset(array.get_data_handle(), 0, array.get_desc().get_size());
  }

  memory zeros(const Desc& layout) {
    memory array(layout, cpu_);
    clear(array);
    return array;
  }

  memory read(std::istream& in, const Desc& layout) {
    memory array(layout, cpu_);
    in.read(static_cast<char*>(array.get_data_handle()), std::streamsize(layout.get_size()));
    return array;
  }

  void write(std::ostream& out, const memory& array, const Desc& layout) {
    const memory plain = reordered(array, layout);
    out.write(static_cast<const char*>(plain.get_data_handle()), std::streamsize(layout.get_size()));
  }

  static constexpr auto direction = rnn_direction::unidirectional_left2right;
  engine cpu_;
  stream stream_;
  Case case_;
  primitive_attr attributes_;
  Pass forward_, backward_;
};

/// As rnncore.commands.measure.timing does it: the median of calls, or of groups of short ones.
double time_call(Layer& layer, double seconds) {
  constexpr double patience = 10, group = 5e-5;
  constexpr std::size_t least = 5;
  const auto time = [&](long calls) {
    const auto started = std::chrono::steady_clock::now();
    for (long i = 0; i < calls; ++i) layer.run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count() /
           double(calls);
  };
  const double first = time(1);
  if (first > patience * seconds) return first;
  const long size = std::max(1L, std::lround(group / std::max(time(1), 1e-9)));
  std::vector<double> times;
  for (double total = 0; total < seconds || (times.size() < least && total < patience * seconds);
       total += times.back() * double(size))
    times.push_back(time(size));
  std::sort(times.begin(), times.end());
  const std::size_t middle = times.size() / 2;
  return times.size() % 2 ? times[middle] : (times[middle - 1] + times[middle]) / 2;
}

std::string about() {
  const dnnl_version_t* v = dnnl_version();
  const std::map<cpu_isa, std::string> names{
      {cpu_isa::sse41, "SSE4.1"}, {cpu_isa::avx, "AVX"}, {cpu_isa::avx2, "AVX2"}};
  const auto name = names.find(get_effective_cpu_isa());
  std::ostringstream text;
  text << "oneDNN " << v->major << '.' << v->minor << '.' << v->patch << ", "
       << (name == names.end() ? "AVX-512 or above" : name->second);
  return text.str();
}

std::string answer(const std::string& line, const engine& cpu, std::unique_ptr<Layer>& layer) {
  std::istringstream words(line);
  std::ostringstream text;
  std::string verb, file;
  words >> verb;
  if (verb == "about") return about();
  if (verb == "case") {
    Case c;
    words >> c.cell >> c.mode >> c.steps >> c.batch >> c.inputs >> c.hidden >> file >> c.kind;
    layer.reset(); // before the next one is made
    layer = std::make_unique<Layer>(cpu, c, file);
    layer->run();
    return "ready";
  }
  if (!layer) throw std::runtime_error("no case is ready");
  if (verb == "time") {
    double seconds = 0;
    words >> seconds;
    text.precision(9);
    text << time_call(*layer, seconds);
    return text.str();
  }
  words >> file;
  layer->save(file);
  return "saved";
}

} // namespace

int main() {
  const engine cpu(engine::kind::cpu, 0);
  std::unique_ptr<Layer> layer;
  for (std::string line; std::getline(std::cin, line);) {
    try {
      std::cout << "ok " << answer(line, cpu, layer) << std::endl;
    } catch (const std::exception& e) {
      std::cout << "error " << e.what() << std::endl;
    }
  }
}
