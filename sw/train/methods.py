"""Methods of binarization: what a network's weights and activations can be, as plain settings."""

from __future__ import annotations

from dataclasses import dataclass

from xnorflow.errors import UserError

__all__ = ["METHODS", "MOST_BASES", "MOST_BITS", "Method"]

#: Name of each method, and what it is.
METHODS = {
    "bnn": "signs of weights and activations (Courbariaux et al., 2016)",
    "xnor": "XNOR-Net: signs, with the gain mean |W| of a channel (Rastegari et al., 2016)",
    "dorefa": "DoReFa-Net: weights and activations of few bits (Zhou et al., 2016)",
    "abc": "ABC-Net: weighted sums of several signs (Lin, Zhao and Pan, 2017)",
}

MOST_BITS = 8
MOST_BASES = 5

#: Which method each setting belongs to, and its limits.
_SETTINGS = {
    "weight_bits": ("dorefa", 1, MOST_BITS),
    "activation_bits": ("dorefa", 1, MOST_BITS),
    "weight_bases": ("abc", 1, MOST_BASES),
    "activation_bases": ("abc", 1, MOST_BASES),
    "fraction_bits": ("abc", 1, 7),
    "first_bits": (None, 1, MOST_BITS),
    "last_bits": (None, 1, MOST_BITS),
}


@dataclass(frozen=True)
class Method:
    """How a network is binarized.

    Attributes
    ----------
    name : str
        One of `METHODS`.
    weight_bits, activation_bits : int
        Of ``dorefa``: bits of a weight and of a hidden activation.
    weight_bases, activation_bases : int
        Of ``abc``: signs of which a weight and a hidden activation is a weighted sum.
    fraction_bits : int
        Of ``abc``: the coefficients of a layer's weights are multiples of 2^-fraction_bits of the
        power of two next above the largest.
    first_bits, last_bits : int or None
        Bits of the weights of the first and of the last layer, by the rule of ``dorefa``; None for
        weights like the other layers'.
    pixel_gains : bool
        Of ``xnor``: whether the sums of the layers between the first and the last are multiplied by
        K, the mean magnitude of their windows.
    """

    name: str = "bnn"
    weight_bits: int = 2
    activation_bits: int = 2
    weight_bases: int = 2
    activation_bases: int = 2
    fraction_bits: int = 4
    first_bits: int | None = None
    last_bits: int | None = None
    pixel_gains: bool = False

    @classmethod
    def of(cls, name: str, *, pixel_gains: bool | None = None, **settings: int | None) -> Method:
        """Return a method with the settings that are not None.

        Raises
        ------
        UserError
            There is no such method, it has no such setting, or the setting is out of range.
        """
        if name not in METHODS:
            raise UserError(f"there is no method '{name}'; choose one of: {', '.join(METHODS)}")
        if pixel_gains and name != "xnor":
            raise UserError(
                f"--pixel-gains belongs to the method xnor, not {name}; leave it out, or give "
                f"--method xnor"
            )
        given = {key: value for key, value in settings.items() if value is not None}
        for key, value in given.items():
            owner, least, most = _SETTINGS[key]
            option = f"--{key.replace('_', '-')}"
            if owner not in (None, name):
                raise UserError(
                    f"{option} belongs to the method {owner}, not {name}; "
                    f"leave it out, or give --method {owner}"
                )
            if not least <= value <= most:
                raise UserError(f"{option} {value} is out of range; give {least} to {most}")
        return cls(name, **given, pixel_gains=bool(pixel_gains))

    @property
    def text(self) -> str:
        """The method and its settings, as a person reads them."""
        parts = [self.name]
        if self.name == "dorefa":
            parts += [f"{self.weight_bits}-bit weights", f"{self.activation_bits}-bit activations"]
        if self.name == "abc":
            parts += [
                f"{self.weight_bases} weight bases",
                f"{self.activation_bases} activation bases",
                f"coefficients of {self.fraction_bits} bits",
            ]
        if self.pixel_gains:
            parts.append("gains of pixels")
        for place, bits in (("first", self.first_bits), ("last", self.last_bits)):
            if bits is not None:
                parts.append(f"{bits}-bit weights in the {place} layer")
        return ", ".join(parts)

    def bits_per_weight(self, first: bool, last: bool) -> int:
        """Return the bits that a weight of a layer takes, its coefficients left aside."""
        if first and self.first_bits is not None:
            return self.first_bits
        if last and self.last_bits is not None:
            return self.last_bits
        return {"dorefa": self.weight_bits, "abc": self.weight_bases}.get(self.name, 1)

    @property
    def gain(self) -> int:
        """What the logits are multiplied by, besides a topology's gain.

        It makes up for weights and activations that are smaller than 1 in absolute value.
        """
        return {"bnn": 1, "dorefa": 2, "xnor": 4, "abc": 4}[self.name]
