"""Imported by the process that scorers are forked from (`stream.local.forked`), and by nothing else."""

import gc
import importlib
import os

# OpenBLAS would otherwise start threads in the process that is forked. A scorer does not need them: it uses torch.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

for module in (
    "stream.cli.main",
    "stream.scorer.worker",
    *("model.device", "ops.metrics", "ops.server"),
    # Modules that the ones above import only when they use them.
    *("faust.app.base", "faust.transport.drivers.aiokafka", "fsspec.implementations.local", "river.drift"),
    *("safetensors.torch", "torch.utils._device"),
):
    importlib.import_module(module)

gc.collect()
gc.freeze()  # a collection in a fork then copies none of these pages
