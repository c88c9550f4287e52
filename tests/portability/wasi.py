"""Run a program for WASI, as the package wasmtime does it: wasi.py program.wasm"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import wasmtime

config = wasmtime.WasiConfig()
config.argv = sys.argv[1:]
config.env = [(name, value) for name, value in os.environ.items() if name.startswith("RNNCORE_")]
config.inherit_stdout()
config.inherit_stderr()
settings = wasmtime.Config()
settings.wasm_exceptions = True
engine = wasmtime.Engine(settings)
store = wasmtime.Store(engine)
store.set_wasi(config)
linker = wasmtime.Linker(engine)
linker.define_wasi()
module = wasmtime.Module.from_file(engine, str(Path(sys.argv[1])))
try:
    linker.instantiate(store, module).exports(store)["_start"](store)
except wasmtime.ExitTrap as end:
    sys.exit(end.code)
