"""2HDED:NET: depth and the all-in-focus picture, side by side, from one defocused picture.

Nazir, Vaquero, Mucientes, Brea & Coltuc, "Depth Estimation and Image Restoration by Deep Learning from Defocused Images"
(IEEE Transactions on Computational Imaging, 2023; first as "2HDED:NET", ICIP 2022): the network of its figure on the
architecture, with the details of its authors' code. One DenseNet-121 encoder as in D3-Net, but with a 3x3 first
convolution, and two decoders as D3-Net's: one to depth, one to RGB, to which the input picture is added at the end
(the input-join), so that this one learns only what defocus took away. Both decoders see the encoder's features of their scale.

The paper reports about 41 M parameters; here they are 41,414,400.

The code lets tasks share the decoder's first three blocks; that is for several depth-like tasks and of no effect with the
one here. Its dropout is D3-Net's, in both decoders.
"""

from __future__ import annotations

from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.models.base import DepthModel, Signature
from dfd_ros.models.d3net import DROPOUT, Decoder, centre, initialise
from dfd_ros.models.densenet import STRIDE, DenseNet121


class TwoHeaded(DepthModel):
    """The network.

    Args:
        inputs: The picture or pictures it takes; the first one is what all in focus is restored from.
        dropout: Probability of dropout in the first two blocks of each decoder.
    """

    def __init__(self, inputs: tuple[str, ...] = ("shallow",), dropout: float = DROPOUT) -> None:
        signature = Signature(inputs, ("depth", "all_in_focus"), multiple=STRIDE)
        super().__init__(signature)
        if inputs[0] == "difference":
            raise InputError("inputs must begin with a picture to restore, not with difference")
        self.encoder = DenseNet121(signature.channels, kernel=3, strided=True)
        self.depth_decoder = Decoder(1, dropout)
        self.restoration_decoder = Decoder(3, dropout)
        self.apply(initialise)

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        pyramid = self.encoder(centre(images))
        return {
            "depth": self.depth_decoder(pyramid),
            "all_in_focus": images[:, :3] + self.restoration_decoder(pyramid),
        }
