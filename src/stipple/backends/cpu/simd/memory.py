"""Loads and stores: between vectors and arrays of numbers.

An array may be of float32, or of another number that is converted on the way (8-bit, 32-bit and 64-bit integers,
booleans, float64; stores truncate towards zero). Arrays are C-contiguous, and counted in elements of the flattened
array. Nothing is checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from stipple.backends.cpu.simd.types import (
    BITS,
    F32,
    FLOATS,
    I32,
    INTS,
    LANES,
    function,
    intrinsic,
    is_number,
    mask,
    vector,
)

_I64 = ir.IntType(64)


class Place:
    """The location of an element: its address, its type and its guaranteed alignment."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any, index: Any) -> None:
        self.builder, self.element = builder, kind.dtype
        self.llvm = context.get_data_type(kind.dtype)
        self.bits = 8 if kind.dtype == types.boolean else kind.dtype.bitwidth
        self.signed = bool(getattr(kind.dtype, "signed", False))
        if isinstance(kind, types.Array):
            base = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
            self.alignment = self.bits // 8
        else:
            base, self.alignment = array, 4 * LANES
        self.address = builder.gep(base, [index])

    def shifted(self, elements: Any, aligned: bool = False) -> Place:
        """The place that many elements further on; ``aligned`` if it is a multiple of LANES."""
        other = object.__new__(Place)
        other.__dict__.update(self.__dict__)
        distance = elements if isinstance(elements, ir.Value) else ir.Constant(_I64, elements)
        other.address = self.builder.gep(self.address, [distance])
        if not aligned:
            other.alignment = min(self.alignment, 4)
        return other

    def _vector(self) -> Any:
        return ir.VectorType(self.llvm, LANES)

    def _mangled(self) -> str:
        letter = "f" if self.llvm in (F32, ir.DoubleType()) else "i"
        return f"v{LANES}{letter}{self.bits}"

    def load(self, lanes: Any = None) -> Any:
        """LANES consecutive elements as floats; zeros where ``lanes`` is not set."""
        return self.to_floats(self.load_elements(lanes))

    def load_elements(self, lanes: Any = None) -> Any:
        """LANES consecutive elements as they are; zeros where ``lanes`` is not set."""
        wide, builder = self._vector(), self.builder
        pointer = builder.bitcast(self.address, wide.as_pointer())
        if lanes is None:
            return builder.load(pointer, align=self.alignment, typ=wide)
        name = f"llvm.masked.load.{self._mangled()}.p0"
        masked = function(builder, name, wide, [wide.as_pointer(), I32, BITS, wide])
        zeros = ir.Constant(wide, [0.0 if self.llvm in (F32, ir.DoubleType()) else 0] * LANES)
        return builder.call(masked, [pointer, I32(min(self.alignment, 4)), lanes, zeros])

    def store(self, value: Any, lanes: Any = None) -> None:
        """LANES consecutive elements from floats, or those of them where ``lanes`` is set."""
        wide, builder = self._vector(), self.builder
        pointer = builder.bitcast(self.address, wide.as_pointer())
        value = self.from_floats(value)
        if lanes is None:
            builder.store(value, pointer, align=self.alignment)
            return
        name = f"llvm.masked.store.{self._mangled()}.p0"
        masked = function(builder, name, ir.VoidType(), [wide, wide.as_pointer(), I32, BITS])
        builder.call(masked, [value, pointer, I32(min(self.alignment, 4)), lanes])

    def to_floats(self, value: Any) -> Any:
        builder = self.builder
        if self.element == types.float32:
            return value
        if isinstance(self.element, types.Float):
            return builder.fptrunc(value, FLOATS)
        return builder.sitofp(value, FLOATS) if self.signed else builder.uitofp(value, FLOATS)

    def from_floats(self, value: Any) -> Any:
        builder, wide = self.builder, self._vector()
        if self.element == types.float32:
            return value
        if isinstance(self.element, types.Float):
            return builder.fpext(value, wide)
        return builder.fptosi(value, wide) if self.signed else builder.fptoui(value, wide)


def _is_memory(t: Any) -> bool:
    return isinstance(t, types.CPointer) or (isinstance(t, types.Array) and t.layout == "C")


def _indexed(array: Any, i: Any) -> bool:
    return _is_memory(array) and isinstance(i, types.Integer)


def _columns(t: Any) -> int | None:
    if isinstance(t, types.BaseTuple):
        return len(t) or None
    return t.literal_value if isinstance(t, types.IntegerLiteral) else None


# --- whole vectors ----------------------------------------------------------------------------------------
@intrinsic
def load(typing: Any, array: Any, i: Any) -> Any:
    """LANES values from element i on."""
    if not _indexed(array, i):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return Place(context, builder, array, *args).load()

    return vector(array, types.intp), generate


@intrinsic
def load_lanes(typing: Any, array: Any, i: Any, lanes: Any) -> Any:
    """Like ``load`` where the mask is set; zeros elsewhere, where memory is not read."""
    if not (_indexed(array, i) and lanes == mask):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return Place(context, builder, array, *args[:2]).load(args[2])

    return vector(array, types.intp, mask), generate


@intrinsic
def load_offsets(typing: Any, array: Any, i: Any, origin: Any, lanes: Any) -> Any:
    """Like ``load_lanes`` for int32 elements, minus ``origin``; exact if the differences are below 2^24."""
    if not (_indexed(array, i) and array.dtype == types.int32 and isinstance(origin, types.Integer) and lanes == mask):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base, index, start, chosen = args
        place = Place(context, builder, array, base, index)
        start = builder.trunc(start, I32)
        first = builder.insert_element(ir.Constant(INTS, ir.Undefined), start, I32(0))
        origins = builder.shuffle_vector(first, ir.Constant(INTS, ir.Undefined), ir.Constant(INTS, [0] * LANES))
        return builder.sitofp(builder.sub(place.load_elements(chosen), origins), FLOATS)

    return vector(array, types.intp, types.int64, mask), generate


@intrinsic
def store(typing: Any, array: Any, i: Any, value: Any) -> Any:
    """Store LANES values from element i on."""
    if not (_indexed(array, i) and is_number(value)):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        Place(context, builder, array, *args[:2]).store(args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def store_lanes(typing: Any, array: Any, i: Any, value: Any, lanes: Any) -> Any:
    """Like ``store``, but only where the mask is set."""
    if not (_indexed(array, i) and is_number(value) and lanes == mask):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        Place(context, builder, array, *args[:2]).store(args[2], args[3])
        return context.get_dummy_value()

    return types.void(array, types.intp, vector, mask), generate


# --- rows of a few columns --------------------------------------------------------------------------------
def _chosen(builder: Any, sources: list[Any], picks: list[tuple[int, int]]) -> Any:
    """A vector whose lanes are (source, lane) pairs of some vectors: one shuffle for each source after the first."""
    value = sources[0]
    for k in range(1, len(sources)):
        kept = [lane if k == 1 else position for position, (_, lane) in enumerate(picks)]
        order = [LANES + lane if source == k else kept[p] for p, (source, lane) in enumerate(picks)]
        value = builder.shuffle_vector(value, sources[k], ir.Constant(INTS, order))
    return value


def _deinterleaved(builder: Any, parts: list[Any]) -> list[Any]:
    """Columns of consecutive rows, which are stored in as many vectors as there are columns."""
    count = len(parts)
    return [
        _chosen(builder, parts, [divmod(row * count + column, LANES) for row in range(LANES)])
        for column in range(count)
    ]


def _interleaved(builder: Any, columns: list[Any]) -> list[Any]:
    """The vectors that hold consecutive rows of some columns."""
    count = len(columns)
    result = []
    for part in range(count):
        places = [divmod(part * LANES + lane, count) for lane in range(LANES)]
        result.append(_chosen(builder, columns, [(column, row) for row, column in places]))
    return result


def _row_masks(builder: Any, lanes: Any, columns: int) -> list[Any]:
    """For each vector of ``columns`` columns' rows, which of its elements belong to rows whose lane is set."""
    orders = [[(part * LANES + lane) // columns for lane in range(LANES)] for part in range(columns)]
    return [builder.shuffle_vector(lanes, lanes, ir.Constant(INTS, order)) for order in orders]


def _load_rows(builder: Any, place: Place, columns: int, lanes: Any = None) -> list[Any]:
    masks = [None] * columns if lanes is None else _row_masks(builder, lanes, columns)
    return _deinterleaved(builder, [place.shifted(k * LANES).load(m) for k, m in enumerate(masks)])


def _store_rows(builder: Any, place: Place, values: list[Any], lanes: Any = None) -> None:
    masks = [None] * len(values) if lanes is None else _row_masks(builder, lanes, len(values))
    for k, (value, m) in enumerate(zip(_interleaved(builder, values), masks, strict=True)):
        place.shifted(k * LANES).store(value, m)


@intrinsic(prefer_literal=True)
def load_columns(typing: Any, array: Any, i: Any, columns: Any) -> Any:
    """A tuple of the columns of LANES rows; i is the first row's first element.

    ``columns`` is a literal, or a tuple that is as long as there are columns.
    """
    count = _columns(columns)
    if count is None or not _indexed(array, i):
        return None
    result = types.UniTuple(vector, count)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, *args[:2])
        return context.make_tuple(builder, result, _load_rows(builder, place, count))

    return result(array, types.intp, columns), generate


@intrinsic(prefer_literal=True)
def load_columns_lanes(typing: Any, array: Any, i: Any, columns: Any, lanes: Any) -> Any:
    """Like ``load_columns`` for the rows where the mask is set; zeros for the others, whose memory is not read."""
    count = _columns(columns)
    if count is None or not (_indexed(array, i) and lanes == mask):
        return None
    result = types.UniTuple(vector, count)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, *args[:2])
        return context.make_tuple(builder, result, _load_rows(builder, place, count, args[3]))

    return result(array, types.intp, columns, mask), generate


def _is_values(t: Any) -> bool:
    elements: Any = t
    return isinstance(t, types.BaseTuple) and len(t) > 0 and all(is_number(v) for v in elements)


def _values(context: Any, builder: Any, kind: Any, value: Any) -> list[Any]:
    parts = cgutils.unpack_tuple(builder, value)
    return [context.cast(builder, v, t, vector) for v, t in zip(parts, kind, strict=True)]


@intrinsic
def store_columns(typing: Any, array: Any, i: Any, values: Any) -> Any:
    """Store a tuple of vectors as the columns of LANES rows; i is the first row's first element."""
    if not (_indexed(array, i) and _is_values(values)):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, *args[:2])
        _store_rows(builder, place, _values(context, builder, values, args[2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, values), generate


@intrinsic
def store_columns_lanes(typing: Any, array: Any, i: Any, values: Any, lanes: Any) -> Any:
    """Like ``store_columns``, but only for the rows where the mask is set."""
    if not (_indexed(array, i) and _is_values(values) and lanes == mask):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, *args[:2])
        _store_rows(builder, place, _values(context, builder, values, args[2]), args[3])
        return context.get_dummy_value()

    return types.void(array, types.intp, values, mask), generate


# --- strides ----------------------------------------------------------------------------------------------
def _strided(builder: Any, place: Place, stride: Any, lane: int) -> Place:
    return place.shifted(builder.mul(stride, ir.Constant(_I64, lane)))


@intrinsic
def gather(typing: Any, array: Any, i: Any, stride: Any) -> Any:
    """Elements i, i + stride, i + 2 stride, ...: where whole rows are needed, ``load_columns`` is faster."""
    if not (_indexed(array, i) and isinstance(stride, types.Integer)):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, *args[:2])
        value = ir.Constant(ir.VectorType(place.llvm, LANES), ir.Undefined)
        for lane in range(LANES):
            element = builder.load(_strided(builder, place, args[2], lane).address, typ=place.llvm)
            value = builder.insert_element(value, element, I32(lane))
        return place.to_floats(value)

    return vector(array, types.intp, types.intp), generate


@intrinsic
def scatter(typing: Any, array: Any, i: Any, stride: Any, value: Any) -> Any:
    """Store to elements i, i + stride, i + 2 stride, ..."""
    if not (_indexed(array, i) and isinstance(stride, types.Integer) and is_number(value)):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = Place(context, builder, array, *args[:2])
        converted = place.from_floats(args[3])
        for lane in range(LANES):
            element = builder.extract_element(converted, I32(lane))
            builder.store(element, _strided(builder, place, args[2], lane).address)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), generate


# --- scalars ----------------------------------------------------------------------------------------------
@intrinsic
def load_scalar(typing: Any, array: Any, i: Any) -> Any:
    """One element, as it is and without Python's negative indices."""
    if not _indexed(array, i):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.unpack_value(builder, array.dtype, Place(context, builder, array, *args).address)

    return array.dtype(array, types.intp), generate


@intrinsic
def store_scalar(typing: Any, array: Any, i: Any, value: Any) -> Any:
    """Store one element, without Python's negative indices."""
    if not _indexed(array, i):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        context.pack_value(builder, array.dtype, args[2], Place(context, builder, array, *args[:2]).address)
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), generate


@intrinsic
def prefetch(typing: Any, array: Any, i: Any) -> Any:
    """Prefetch the cache line of element i."""
    if not _indexed(array, i):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        ask = function(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, I32, I32, I32])
        address = builder.bitcast(Place(context, builder, array, *args).address, pointer)
        builder.call(ask, [address, I32(0), I32(3), I32(1)])  # to read, keep in all caches, data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate
