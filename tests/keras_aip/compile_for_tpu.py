"""HLO file → executable for a TPU v5e, on a machine without one. Runs in an environment of its own: jax and libtpu.

Private interfaces of jax, pinned in requirements/tpu-compile.txt; nothing but a test stands on them.
"""

import os
import re
import sys

# Nobody is to be asked which TPU this machine has.
os.environ.update(TPU_SKIP_MDS_QUERY="1", JAX_PLATFORMS="cpu")

import numpy as np
from jax._src.interpreters import mlir
from jax._src.lib import xla_client
from jax.experimental import topologies
from jaxlib.mlir import ir

with open(sys.argv[1], "rb") as file:
    computation = xla_client.XlaComputation(file.read())
module = xla_client._xla.mlir.xla_computation_to_mlir_module(computation)
# The one operation that has no StableHLO form.
module = re.sub(r"mhlo\.copy (%\S+)", r"stablehlo.optimization_barrier \1", module)
with mlir.make_ir_context():
    parsed = ir.Module.parse(module)
device = topologies.get_topology_desc("v5e:2x2", "tpu").devices[0]
options = xla_client.CompileOptions()
options.num_replicas = options.num_partitions = 1
options.device_assignment = xla_client.DeviceAssignment.create(np.array([[0]]))
executable = device.client.compile(parsed, xla_client.DeviceList((device,)), options)
print("compiled for", device.device_kind, executable.get_compiled_memory_stats().generated_code_size_in_bytes)
