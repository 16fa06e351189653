"""Element types of tensors."""

from __future__ import annotations

import enum

import numpy as np

from stipple.errors import GraphError


class DType(enum.Enum):
    """Element type of a tensor. The value is the name used in printed and stored graphs."""

    F32 = "f32"
    F64 = "f64"
    I32 = "i32"
    U8 = "u8"
    BOOL = "bool"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy dtype that holds this element type."""
        return _TO_NUMPY[self]

    @property
    def is_float(self) -> bool:
        return self in (DType.F32, DType.F64)

    @property
    def is_int(self) -> bool:
        return self in (DType.I32, DType.U8)

    @property
    def itemsize(self) -> int:
        return int(self.numpy.itemsize)

    @classmethod
    def of(cls, value: DType | str | np.dtype[np.generic] | type) -> DType:
        """The DType for a DType, its name, or anything that NumPy accepts as a dtype."""
        if isinstance(value, DType):
            return value
        if isinstance(value, str) and value in _BY_NAME:
            return _BY_NAME[value]
        try:
            found = _FROM_NUMPY.get(np.dtype(value))
        except TypeError:
            found = None
        if found is None:
            raise GraphError(f"dtype: expected one of {', '.join(_BY_NAME)}, got {value!r}")
        return found


_TO_NUMPY: dict[DType, np.dtype[np.generic]] = {
    DType.F32: np.dtype(np.float32),
    DType.F64: np.dtype(np.float64),
    DType.I32: np.dtype(np.int32),
    DType.U8: np.dtype(np.uint8),
    DType.BOOL: np.dtype(np.bool_),
}
_FROM_NUMPY = {n: d for d, n in _TO_NUMPY.items()}
_BY_NAME = {d.value: d for d in DType}
