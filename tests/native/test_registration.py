"""The library in a process that has several copies of ONNX Runtime."""

import ctypes
import shutil
from pathlib import Path

API_FUNCTIONS = 300
CREATE_DOMAIN, ADD_OPERATOR, ADD_DOMAIN, INPUT_SHAPE = 26, 27, 28, 268  # positions in OrtApi: native/ort_api.h
INFER_OUTPUT_SHAPE = 19  # members of OrtCustomOp before it, of 8 bytes each

Function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
InferOutputShape = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
GetApi = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
InputShape = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


class ApiBase(ctypes.Structure):
    _fields_ = (("get_api", GetApi), ("get_version", ctypes.c_void_p))


class OnnxRuntime:
    """What the library sees of an ONNX Runtime: its table of functions, which record their calls."""

    def __init__(self, number: int) -> None:
        self.domain = 0x1000 * number
        self.error = self.domain + 1  # what its shape inference answers
        self.operators: list[int] = []
        self.domains: list[int] = []
        self.functions = {
            CREATE_DOMAIN: Function(self.create_domain),
            ADD_OPERATOR: Function(self.add_operator),
            ADD_DOMAIN: Function(self.add_domain),
            INPUT_SHAPE: InputShape(lambda *_: self.error),
        }
        self.table = (ctypes.c_void_p * API_FUNCTIONS)()
        for position, function in self.functions.items():
            self.table[position] = ctypes.cast(function, ctypes.c_void_p)
        self.base = ApiBase(GetApi(lambda _: ctypes.addressof(self.table)), None)

    def create_domain(self, _name: int, domain: int) -> None:
        ctypes.c_void_p.from_address(domain).value = self.domain

    def add_operator(self, domain: int, operator: int) -> None:
        assert domain == self.domain
        self.operators.append(operator)

    def add_domain(self, _options: int, domain: int) -> None:
        self.domains.append(domain)


def test_each_onnx_runtime_has_a_domain_of_its_own(library: Path, tmp_path: Path) -> None:
    # a copy, so that the sessions of other tests have nothing to do with it
    loaded = ctypes.CDLL(str(shutil.copy(library, tmp_path / "copy.so")))
    loaded.RegisterCustomOps.restype = ctypes.c_void_p
    first, second = OnnxRuntime(1), OnnxRuntime(2)

    for runtime in (first, second, first):
        assert loaded.RegisterCustomOps(None, ctypes.byref(runtime.base)) is None

    assert (first.domains, second.domains) == ([first.domain] * 2, [second.domain])
    assert len(first.operators) == len(second.operators) > 0  # each is added once
    assert not set(first.operators) & set(second.operators)
    for runtime in (first, second):
        infer = InferOutputShape.from_address(runtime.operators[0] + 8 * INFER_OUTPUT_SHAPE)
        assert infer(runtime.operators[0], None) == runtime.error
