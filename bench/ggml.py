"""The few functions of ggml that a peer needs, out of the libraries of llama-cpp-python."""

import ctypes
import importlib.util
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

TYPES = {"f32": 0, "q4_0": 2, "i32": 26}  # enum ggml_type
LIBRARIES = "ggml-base", "ggml-cpu", "ggml"  # each needs those before it


class InitParams(ctypes.Structure):
    """struct ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


POINTERS = (c_void_p,)
SIGNATURES = {  # name -> result, arguments
    "ggml_init": (c_void_p, InitParams),
    "ggml_new_tensor_2d": (c_void_p, c_void_p, c_int, c_int64, c_int64),
    "ggml_new_tensor_3d": (c_void_p, c_void_p, c_int, c_int64, c_int64, c_int64),
    "ggml_nbytes": (c_size_t, c_void_p),
    "ggml_mul_mat_id": (c_void_p, *POINTERS * 4),
    "ggml_swiglu_split": (c_void_p, *POINTERS * 3),
    "ggml_mul": (c_void_p, *POINTERS * 3),
    "ggml_add": (c_void_p, *POINTERS * 3),
    "ggml_view_2d": (c_void_p, *POINTERS * 2, c_int64, c_int64, c_size_t, c_size_t),
    "ggml_set_input": (None, c_void_p),
    "ggml_set_output": (None, c_void_p),
    "ggml_new_graph": (c_void_p, c_void_p),
    "ggml_build_forward_expand": (None, c_void_p, c_void_p),
    "ggml_gallocr_new": (c_void_p, c_void_p),
    "ggml_gallocr_alloc_graph": (c_bool, c_void_p, c_void_p),
    "ggml_free": (None, c_void_p),
    "ggml_backend_cpu_init": (c_void_p,),
    "ggml_backend_cpu_set_n_threads": (None, c_void_p, c_int),
    "ggml_backend_cpu_buffer_type": (c_void_p,),
    "ggml_backend_get_device": (c_void_p, c_void_p),
    "ggml_backend_dev_backend_reg": (c_void_p, c_void_p),
    "ggml_backend_reg_get_proc_address": (c_void_p, c_void_p, c_char_p),
    "ggml_backend_buft_name": (c_char_p, c_void_p),
    "ggml_backend_buft_alloc_buffer": (c_void_p, c_void_p, c_size_t),
    "ggml_backend_buffer_get_base": (c_void_p, c_void_p),
    "ggml_backend_tensor_alloc": (c_int, *POINTERS * 3),
    "ggml_backend_tensor_set": (None, *POINTERS * 2, c_size_t, c_size_t),
    "ggml_backend_tensor_get": (None, *POINTERS * 2, c_size_t, c_size_t),
    "ggml_backend_graph_compute": (c_int, c_void_p, c_void_p),
}


class Ggml:
    """`ggml.new_graph(...)` is `ggml_new_graph(...)`, with its types declared."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("llama_cpp")
        folder = Path(spec.origin).parent / "lib"
        self._libraries = [
            ctypes.CDLL(str(folder / f"lib{name}.so"), ctypes.RTLD_GLOBAL) for name in LIBRARIES
        ]

    def __getattr__(self, name: str) -> object:
        symbol = f"ggml_{name}"
        result, *arguments = SIGNATURES[symbol]
        library = next(each for each in self._libraries if hasattr(each, symbol))
        function = getattr(library, symbol)
        function.restype, function.argtypes = result, arguments
        setattr(self, name, function)
        return function

    def repacking_buffer_type(self, backend: int) -> int | None:
        """The buffer type that rearranges weights for this CPU; None in builds without it."""
        device = self.backend_get_device(backend)
        registry = self.backend_dev_backend_reg(device)
        address = self.backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
        if not address:
            return None
        offered = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(address)(device)
        index = 0
        while offered and offered[index]:
            if self.backend_buft_name(offered[index]) == b"CPU_REPACK":
                return offered[index]
            index += 1
        return None
