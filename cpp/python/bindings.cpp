// The extension module: a table of contents.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../engine/dispatch.hpp"
#include "../engine/pieces.hpp"
#include "../engine/quota.hpp"
#include "../engine/threads.hpp"
#include "convolution.hpp"
#include "crf.hpp"
#include "ctc.hpp"
#include "decoding.hpp"
#include "layer.hpp"
#include "linear.hpp"
#include "log_probs.hpp"
#include "pointwise.hpp"
#include "program.hpp"
#include "search.hpp"
#include "stream.hpp"
#include "transducer.hpp"

namespace {

using namespace rnncore;

template <class T>
void bind_layer(py::module_& m, const std::string& suffix) {
  py::class_<Tape<T>>(m, ("Tape" + suffix).c_str()).def_property_readonly("nbytes", &Tape<T>::bytes);

  py::class_<ForestTape<T>>(m, ("ForestTape" + suffix).c_str());

  py::class_<Targets<T>>(m, ("Targets" + suffix).c_str());

  py::class_<Layer<T>>(m, ("Layer" + suffix).c_str())
      .def(py::init<const Settings&, const ParameterGroups&>(), py::arg("settings"), py::arg("params"))
      .def("lend", &Layer<T>::lend)
      .def("targets", &Layer<T>::targets, py::arg("gradients"))
      .def("targets_in", &Layer<T>::targets_in, py::arg("parameters"), py::arg("arrays"))
      .def("forward", &Layer<T>::forward, py::arg("x"), py::arg("h0"), py::arg("c0"), py::arg("lengths"),
           py::arg("record"), py::arg("cell_states"), py::arg("masks"), py::arg("batch_sizes") = py::none(),
           py::arg("out") = py::none(), py::arg("restarts") = py::none())
      .def("infer", &Layer<T>::infer, py::arg("x"), py::arg("state"), py::arg("masks"), py::arg("resets"))
      .def("backward", &Layer<T>::backward, py::arg("tape"), py::arg("dy"), py::arg("dh"), py::arg("dc"),
           py::arg("gradients"), py::arg("want_dx"), py::arg("d_anew") = py::none())
      .def("forward_forest", &Layer<T>::forward_forest, py::arg("x"), py::arg("order"), py::arg("given"),
           py::arg("masks"), py::arg("record"))
      .def("backward_forest", &Layer<T>::backward_forest, py::arg("tape"), py::arg("dh"), py::arg("dc"),
           py::arg("gradients"));
}

template <class T>
void bind_linear(py::module_& m, const std::string& suffix) {
  py::class_<LinearLayer<T>>(m, ("Linear" + suffix).c_str())
      .def(py::init<Index, Index, const py::object&, const py::object&, bool, const std::string&>(),
           py::arg("inputs"), py::arg("outputs"), py::arg("weight"), py::arg("bias"),
           py::arg("owned") = false, py::arg("weights") = "")
      .def("lend", &LinearLayer<T>::lend)
      .def("forward", &LinearLayer<T>::forward, py::arg("x"))
      .def("backward", &LinearLayer<T>::backward, py::arg("x"), py::arg("dy"), py::arg("weight_gradient"),
           py::arg("bias_gradient"), py::arg("want_dx") = true);
}

template <class T>
void bind_convolution(py::module_& m, const std::string& suffix) {
  py::class_<ConvolutionLayer<T>>(m, ("Convolution" + suffix).c_str())
      .def(py::init<Index, Index, Index, const std::array<Index, 2>&, const py::object&, const py::object&,
                    bool, const std::string&>(),
           py::arg("inputs"), py::arg("outputs"), py::arg("groups"), py::arg("taps"), py::arg("weight"),
           py::arg("bias"), py::arg("owned") = false, py::arg("weights") = "")
      .def("lend", &ConvolutionLayer<T>::lend)
      .def("forward", &ConvolutionLayer<T>::forward, py::arg("x"), py::arg("windows"))
      .def("spread", &ConvolutionLayer<T>::spread, py::arg("y"), py::arg("windows"), py::arg("bias"))
      .def("backward", &ConvolutionLayer<T>::backward, py::arg("x"), py::arg("dy"), py::arg("windows"),
           py::arg("weight_gradient"), py::arg("bias_gradient"), py::arg("want_dx") = true);
  py::class_<PoolingLayer<T>>(m, ("Pooling" + suffix).c_str())
      .def(py::init<bool, bool>(), py::arg("largest"), py::arg("padded"))
      .def("forward", &PoolingLayer<T>::forward, py::arg("x"), py::arg("windows"))
      .def("backward", &PoolingLayer<T>::backward, py::arg("x"), py::arg("y"), py::arg("dy"),
           py::arg("windows"));
}

template <class T>
void bind_pointwise(py::module_& m, const std::string& suffix) {
  py::class_<PointwiseLayer<T>>(m, ("Pointwise" + suffix).c_str())
      .def("forward", &PointwiseLayer<T>::forward, py::arg("x"), py::arg("out") = py::none());
  py::class_<ActivationLayer<T>, PointwiseLayer<T>>(m, ("Activation" + suffix).c_str())
      .def(py::init<const std::string&, double, double>(), py::arg("name"), py::arg("alpha"),
           py::arg("beta"))
      .def("backward", &ActivationLayer<T>::backward, py::arg("y"), py::arg("dy"));
  py::class_<SoftmaxLayer<T>, PointwiseLayer<T>>(m, ("Softmax" + suffix).c_str()).def(py::init<>());
  py::class_<NormLayer<T>, PointwiseLayer<T>>(m, ("Norm" + suffix).c_str())
      .def(py::init<const py::object&, const py::object&, double>(), py::arg("weight"), py::arg("bias"),
           py::arg("epsilon"));
  py::class_<SlopesLayer<T>, PointwiseLayer<T>>(m, ("Slopes" + suffix).c_str())
      .def(py::init<const py::object&>(), py::arg("weight"));

  py::class_<EmbeddingLayer<T>>(m, ("Embedding" + suffix).c_str())
      .def(py::init<Index, Index, const py::object&, const py::object&>(), py::arg("count"),
           py::arg("width"), py::arg("weight"), py::arg("scale") = py::none())
      .def_property_readonly("count", &EmbeddingLayer<T>::count);
}

template <class T>
void bind_memory(py::module_& m, const std::string& suffix) {
  py::class_<Memory<T>>(m, ("Memory" + suffix).c_str())
      .def(py::init<const py::object&, const py::object&, const py::object&, const py::object&, double,
                    bool>(),
           py::arg("keys"), py::arg("values"), py::arg("lengths"), py::arg("v") = py::none(),
           py::arg("window") = 0, py::arg("causal") = false)
      .def("attend", &Memory<T>::attend, py::arg("query"), py::arg("source") = py::none(),
           py::arg("steps") = py::none(), py::arg("centre") = py::none(), py::arg("room") = 0)
      .def("attend_backward", &Memory<T>::attend_backward, py::arg("dcontext"), py::arg("weights"),
           py::arg("query"), py::arg("steps"), py::arg("centre"), py::arg("dkeys"), py::arg("dvalues"),
           py::arg("dv"));
}

template <class T>
void bind_decoding(py::module_& m, const std::string& suffix) {
  py::class_<DecodingTape<T>>(m, ("DecodingTape" + suffix).c_str());

  py::class_<Decoding<T>>(m, ("Decoding" + suffix).c_str())
      .def(py::init<const py::list&, const py::object&, const py::object&, const py::object&>(),
           py::arg("layers"), py::arg("query"), py::arg("position"), py::arg("combine"))
      .def("forward", &Decoding<T>::forward, py::arg("memory"), py::arg("x"), py::arg("h0"), py::arg("c0"),
           py::arg("lengths"), py::arg("masks"), py::arg("record"))
      .def("backward", &Decoding<T>::backward, py::arg("tape"), py::arg("dy"), py::arg("dcontext"),
           py::arg("gradients"), py::arg("dkeys"), py::arg("dvalues"), py::arg("dv"));
}

template <class T>
void bind_stream(py::module_& m, const std::string& suffix) {
  py::class_<Stream<T>>(m, ("Stream" + suffix).c_str())
      .def(py::init<const py::list&, Index, Index, const py::object&, const Stream<T>*>(),
           py::arg("layers"), py::arg("batch"), py::arg("width"), py::arg("check"), py::arg("other"))
      // Two of them: filling in a default would cost a small step a tenth of its time.
      .def("step", &Stream<T>::step, py::arg("x"), py::arg("out") = py::none())
      .def("step", &Stream<T>::step_rows, py::arg("x"), py::arg("out") = py::none(),
           py::arg("resets") = py::none(), py::kw_only(), py::arg("rows") = py::none())
      .def("run", &Stream<T>::run, py::arg("x"), py::arg("resets"), py::arg("rows"), py::arg("lengths"))
      .def("repeat", &Stream<T>::repeat, py::arg("x"), py::arg("times"))
      .def("refresh", &Stream<T>::refresh, py::arg("layers"));
}

template <class T>
void bind_program(py::module_& m, const std::string& suffix) {
  using P = Program<T>;
  py::class_<P>(m, ("Program" + suffix).c_str())
      .def(py::init<>())
      .def("copy", &P::copy, py::arg("to"), py::arg("x"))
      .def("gather", &P::gather, py::arg("to"), py::arg("x"), py::arg("index"))
      .def("activate", &P::activate, py::arg("to"), py::arg("x"), py::arg("name"), py::arg("alpha"),
           py::arg("beta"))
      .def("apply", &P::apply, py::arg("to"), py::arg("x"), py::arg("function"))
      .def("combine", &P::combine, py::arg("to"), py::arg("a"), py::arg("b"), py::arg("operation"))
      .def("reduce", &P::reduce, py::arg("to"), py::arg("x"), py::arg("kind"))
      .def("pointwise", &P::pointwise, py::arg("to"), py::arg("x"), py::arg("layer"))
      .def("linear", &P::linear, py::arg("to"), py::arg("x"), py::arg("layer"))
      .def("convolve", &P::convolve, py::arg("to"), py::arg("x"), py::arg("layer"), py::arg("windows"),
           py::arg("add"), py::arg("activation"), py::arg("gated"))
      .def("pool", &P::pool, py::arg("to"), py::arg("x"), py::arg("layer"), py::arg("windows"))
      .def("recur", &P::recur, py::arg("to"), py::arg("x"), py::arg("layer"), py::arg("h"), py::arg("c"))
      .def("run", &P::run);
}

template <class T>
void bind_search(py::module_& m, const std::string& suffix) {
  m.def(("search" + suffix).c_str(), &search<T>, py::arg("parts"), py::arg("rules"), py::arg("limits"),
        py::arg("forced"), py::arg("lengths"));
  m.def(("log_softmax" + suffix).c_str(), &log_softmax_of<T>, py::arg("logits"));
  m.def(("likeliest" + suffix).c_str(), &likeliest_of<T>, py::arg("log_probs"), py::arg("k"));
  m.def(("coverage" + suffix).c_str(), &coverage_of<T>, py::arg("attention"), py::arg("lengths"));
}

template <class T>
void bind_alignment(py::module_& m, const std::string& suffix) {
  py::class_<CrfBatch<T>>(m, ("CrfBatch" + suffix).c_str())
      .def(py::init<const py::object&, bool, const py::object&, const py::object&, const py::object&,
                    const py::object&, const py::object&>(),
           py::arg("emissions"), py::arg("batch_first"), py::arg("lengths"), py::arg("transitions"),
           py::arg("start"), py::arg("end"), py::arg("allowed"))
      .def("loss", &CrfBatch<T>::loss, py::arg("targets"), py::arg("scales"))
      .def("decode", &CrfBatch<T>::decode, py::arg("count"));
  py::class_<CtcBatch<T>>(m, ("CtcBatch" + suffix).c_str())
      .def(py::init<const py::object&, bool, const py::object&, const py::object&, const py::object&,
                    Index>(),
           py::arg("logits"), py::arg("batch_first"), py::arg("lengths"), py::arg("labels"),
           py::arg("counts"), py::arg("blank"))
      .def("forward", &CtcBatch<T>::forward)
      .def("backward", &CtcBatch<T>::backward, py::arg("scales"));
}

template <class T>
void bind_transducer(py::module_& m, const std::string& suffix) {
  using Logits = TransducerLogits<T>;
  using Joint = TransducerJoint<T>;
  using Any = const py::object&;
  py::class_<Logits>(m, ("TransducerLogits" + suffix).c_str())
      .def(py::init<Any, Any, Any, Any, Index>(), py::arg("logits"), py::arg("lengths"), py::arg("labels"),
           py::arg("counts"), py::arg("blank"))
      .def("forward", &Logits::forward)
      .def("backward", &Logits::backward, py::arg("scales"), py::arg("label_weight"));
  py::class_<Joint>(m, ("TransducerJoint" + suffix).c_str())
      .def(py::init<LinearLayer<T>&, Any, Any, Any, Any, Any, Index>(), py::arg("output"), py::arg("f"),
           py::arg("g"), py::arg("lengths"), py::arg("labels"), py::arg("counts"), py::arg("blank"),
           py::keep_alive<1, 2>())
      .def("forward", &Joint::forward)
      .def("backward", &Joint::backward, py::arg("scales"), py::arg("label_weight"), py::arg("bias"));
  m.def(("joint_rows" + suffix).c_str(), &joint_rows<T>, py::arg("f"), py::arg("g"));
}

py::object call_under(Hold& hold, const py::function& function, const py::args& arguments) {
  const Hold::Use use(hold);
  return function(*arguments);
}

/// What compiled this, and the version of it.
std::string compiler() {
#if defined(__clang__)
  return "Clang " + std::to_string(__clang_major__) + "." + std::to_string(__clang_minor__) + "." +
         std::to_string(__clang_patchlevel__);
#else
  return "GCC " __VERSION__;
#endif
}

py::dict info() {
  py::dict d;
  d["version"] = RNNCORE_VERSION;
  d["instruction_set"] = kernels().level;
  d["macros"] = kernels().macros;
  d["vector_bytes"] = kernels().vector_bytes;
  d["compiled_for"] = levels();
  d["compiler"] = compiler();
  return d;
}

/// What each cell is, by name, as its line in the kernels' table says it.
py::dict cells() {
  const Kernels<float>& all = kernels_of<float>();
  py::dict found;
  for (Index i = 0; i < all.count; ++i) {
    const CellKernels<float> cell = all.cell(i);
    py::dict facts;
    facts["name"] = cell.name;
    facts["gates"] = cell.packing.gates;
    facts["recurrent_gates"] = cell.packing.recurrent_gates;
    facts["units"] = cell.packing.units;
    facts["has_cell_state"] = cell.has_cell_state;
    facts["has_recurrent_weights"] = cell.has_recurrent_weights;
    facts["any_arity"] = cell.any_arity;
    facts["multiplies_pairs"] = cell.multiplies_pairs;
    facts["normalises"] = cell.normalises;
    facts["gate"] = name_of(cell.gate);
    facts["candidate"] = name_of(cell.candidate);
    found[cell.name] = facts;
  }
  return found;
}

/// The operations of a cell's program, by name.
py::dict cell_operations() {
  py::dict found;
#define RNNCORE_NUMBER(name, ...) found[#name] = Index(CellOperation::name);
  RNNCORE_CELL_OPERATIONS(RNNCORE_NUMBER)
#undef RNNCORE_NUMBER
  return found;
}

void bind_own_cells(py::module_& m) {
  using Gate = std::tuple<bool, bool, bool, Index>;
  py::class_<CellProgram, std::shared_ptr<CellProgram>>(m, "CellProgram")
      .def(py::init([](const std::vector<Gate>& gates, Index units, Index cells, Index scalars,
                       Index vectors, Index kept, const CellProgram::Rows& forward,
                       const CellProgram::Rows& backward, std::vector<double> constants, bool sums) {
             std::vector<OwnGate> own;
             for (const auto& [input, recurrent, apart, phase] : gates)
               own.push_back({input, recurrent, apart, phase});
             return std::make_shared<CellProgram>(own,
                                                  CellProgram::Sizes{units, cells, scalars, vectors, kept},
                                                  forward, backward, std::move(constants), sums);
           }),
           py::arg("gates"), py::arg("units"), py::arg("cells"), py::arg("scalars"), py::arg("vectors"),
           py::arg("kept"), py::arg("forward"), py::arg("backward"), py::arg("constants"),
           py::arg("sums") = false);
  m.def("cell_operations", &cell_operations);
}

} // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "The compiled kernels of rnncore.";
  kernels(); // an impossible RNNCORE_ISA or RNNCORE_NUM_THREADS fails here, not in the middle of work
  start_threads();
  py::class_<ParameterGroups>(m, "Parameters").def(py::init<Groups>(), py::arg("groups"));
  bind_own_cells(m);
  py::class_<Settings>(m, "Settings")
      .def(py::init<Settings::CellName, Index, Index, Index, Index, bool, const Settings::Activations&,
                    double, double, bool, std::string>(),
           py::arg("cell"), py::arg("input_size"), py::arg("hidden_size"), py::arg("output_size"),
           py::arg("arity"), py::arg("batch_first"), py::arg("activations"), py::arg("cell_clip"),
           py::arg("gate_clip"), py::arg("plain"), py::arg("weights") = "");
  py::class_<Hold>(m, "Hold").def(py::init<>()).def("__call__", &call_under, py::arg("function"));
  bind_layer<float>(m, "F32");
  bind_layer<double>(m, "F64");
  bind_linear<float>(m, "F32");
  bind_linear<double>(m, "F64");
  py::class_<Windows>(m, "Windows")
      .def(py::init(&windows_of), py::arg("images"), py::arg("channels"), py::arg("first"),
           py::arg("second"));
  bind_convolution<float>(m, "F32");
  bind_convolution<double>(m, "F64");
  bind_pointwise<float>(m, "F32");
  bind_pointwise<double>(m, "F64");
  bind_stream<float>(m, "F32");
  bind_stream<double>(m, "F64");
  bind_program<float>(m, "F32");
  bind_program<double>(m, "F64");
  bind_memory<float>(m, "F32");
  bind_memory<double>(m, "F64");
  bind_decoding<float>(m, "F32");
  bind_decoding<double>(m, "F64");
  bind_search<float>(m, "F32");
  bind_search<double>(m, "F64");
  bind_alignment<float>(m, "F32");
  bind_alignment<double>(m, "F64");
  bind_transducer<float>(m, "F32");
  bind_transducer<double>(m, "F64");
  m.def("info", &info);
  m.def("cells", &cells);
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads);
  m.def("spin_time", &spin_time);
  m.def("set_spin_time", &set_spin_time);
  m.def(
      "use_threads",
      [](std::uintptr_t parallel, std::uintptr_t rank, std::uintptr_t count) {
        OtherThreads threads;
        threads.parallel = reinterpret_cast<decltype(threads.parallel)>(parallel);
        threads.rank = reinterpret_cast<decltype(threads.rank)>(rank);
        threads.count = reinterpret_cast<decltype(threads.count)>(count);
        use_threads(threads);
      },
      py::arg("parallel"), py::arg("rank"), py::arg("count"));
  m.def("processors", &processors, py::arg("root"));
  m.def("set_piece_work", &set_piece_work, py::arg("operations"));
}
