"""The tensors inside a flat vector: found by name, seen in their own shape without a copy, and put back."""

from __future__ import annotations

import numpy as np
import pytest

from grapevine.peer.layout import Layout, lay
from tests.helpers import make_peer

SHAPES = {"in.weight": (3, 4), "in.bias": (4,), "scale": (), "out.weight": (4, 2)}


def test_tensors_are_found_by_name() -> None:
    layout = lay(SHAPES.items())
    assert layout.find("in.bias").where() == slice(12, 16)
    assert (layout.find("scale").size, layout.find("out.weight").size) == (1, 8)
    assert layout.largest.name == "in.weight"
    with pytest.raises(ValueError, match=r"no tensor 'bias'; it has in\.weight, in\.bias, scale, out\.weight"):
        layout.find("bias")


def test_a_view_is_the_vector_itself() -> None:
    layout = lay(SHAPES.items())
    peer = make_peer(0, {1: 0.5}, size=25, layout=tuple(layout))
    assert isinstance(peer.layout, Layout)
    assert peer.layout == layout
    for tensor in peer.layout:
        view = tensor.view(peer.weights)
        assert view.shape == SHAPES[tensor.name]
        assert np.shares_memory(view, peer.weights)
        view[...] = np.arange(tensor.start, tensor.stop, dtype=np.float32).reshape(tensor.shape)
        assert np.array_equal(tensor.flat(view), peer.weights[tensor.where()])
        assert np.shares_memory(tensor.flat(view), peer.weights)
    assert np.array_equal(peer.weights, np.arange(25))


def test_a_vector_of_another_shape_is_refused() -> None:
    tensor = lay(SHAPES.items()).find("out.weight")
    for vector in (np.zeros(24, np.float32), np.zeros((5, 5), np.float32), np.zeros(50, np.float32)[::2]):
        with pytest.raises(ValueError, match="elements 17 to 25"):
            tensor.view(vector)
    with pytest.raises(ValueError, match=r"has the shape \(4, 2\), and the values given have \(2, 4\)"):
        tensor.flat(np.zeros((2, 4), np.float32))
