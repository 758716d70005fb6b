"""Random damage to images that a network learns to undo, as MONAI dictionary transforms.

Every image is an array or tensor of shape (C, *S), S of two or three axes, each axis 2 or longer; all channels are
damaged at the same places. What goes in is not changed in place, and the result stays within the range of values.
Random numbers come from `set_random_state` alone.
"""

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_data_type, convert_to_dst_type

from ..errors import OptionError

_CURVE_POINTS = 1000
_CHUNK = 1 << 20
"""Voxels shuffled at once: bounds the memory."""

ValueRange = tuple[float, float] | None


class _Corruptiond(RandomizableTransform, MapTransform):
    """Damage each key with some probability; subclasses say how in `corrupt`.

    Args:
        keys: Keys of the images.
        prob: Probability in [0, 1] of any damage, drawn for each image.
        value_range: Smallest and largest value of images; None: those of each image, over all its channels.
        allow_missing_keys: Whether a key may be missing.

    Raises:
        OptionError: If an argument is out of range.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float,
        value_range: ValueRange = (0.0, 1.0),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, _checked_share("prob", prob))
        if value_range is not None and not value_range[0] < value_range[1]:
            raise OptionError(f"value_range must be two rising numbers or None, got {value_range}")
        self.value_range = value_range

    def __call__(self, data: dict) -> dict:
        """Return the data with damaged images.

        Args:
            data: Images by key, shape (C, *S) each.
        """
        damaged = dict(data)
        for key in self.key_iterator(damaged):
            self.randomize(None)
            if self._do_transform:
                damaged[key] = self._apply(damaged[key])
        return damaged

    def _apply(self, image: NdarrayOrTensor) -> NdarrayOrTensor:
        array = np.array(convert_data_type(image, np.ndarray)[0])  # a copy
        if array.ndim not in (3, 4) or min(array.shape[1:]) < 2:
            raise ValueError(f"image must have a shape (C, *S), S 2 or 3 axes of 2 or more, got {array.shape}")
        low, high = self.value_range or (float(array.min()), float(array.max()))
        return convert_to_dst_type(self.corrupt(array, low, high), image)[0]

    def corrupt(self, image: np.ndarray, low: float, high: float) -> np.ndarray:
        """Return the damaged image.

        Args:
            image: Shape (C, *S); may be changed.
            low: Smallest value of images.
            high: Largest value of images.
        """
        raise NotImplementedError


class RandFlipsd(RandomizableTransform, MapTransform):
    """Mirror all keys alike, up to three times in a row.

    Args:
        keys: Keys of the images.
        prob: Probability in [0, 1] of the first flip, and of another one after each.
        max_flips: Flips at most; each along an axis drawn anew, so that two can cancel out.
        allow_missing_keys: Whether a key may be missing.

    Source:
        Zhou et al. 2021, Models Genesis, Medical Image Analysis 67 (arXiv:2004.07882), appendix.
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.4, max_flips: int = 3, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, _checked_share("prob", prob))
        self.max_flips = max_flips

    def __call__(self, data: dict) -> dict:
        """Return the data with mirrored images.

        Args:
            data: Images by key, shape (C, *S) each.
        """
        flipped = dict(data)
        keys = list(self.key_iterator(flipped))
        for _ in range(self.max_flips if keys else 0):
            self.randomize(None)
            if not self._do_transform:
                break
            axis = int(self.R.randint(1, flipped[keys[0]].ndim))
            for key in keys:
                image = flipped[key]
                flipped[key] = np.flip(image, axis) if isinstance(image, np.ndarray) else image.flip(axis)
        return flipped


class RandLocalShuffled(_Corruptiond):
    """Shuffle the voxels within many small boxes.

    Each box is filled with its own voxels of the undamaged image in random order; a later box covers an earlier one.

    Args:
        keys: Keys of the images.
        prob: Probability in [0, 1].
        num_blocks: Number of boxes, drawn for patches of about 64 x 64 x 32.
        allow_missing_keys: Whether a key may be missing.

    Source:
        Zhou et al. 2021, section 2.2: sides from 1 to a tenth of the patch, so that nothing larger is lost. Here
        they reach 2 at least, without which patches under 20 voxels would stay as they are.
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.5, num_blocks: int = 10_000, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, prob, allow_missing_keys=allow_missing_keys)
        if num_blocks < 1:
            raise OptionError(f"num_blocks must be >= 1, got {num_blocks}")
        self.num_blocks = num_blocks

    def corrupt(self, image: np.ndarray, low: float, high: float) -> np.ndarray:
        """Return the shuffled image; the range does not matter."""
        sizes = np.array(image.shape[1:])
        sides = self.R.randint(1, np.maximum(sizes // 10, 2) + 1, (self.num_blocks, len(sizes)))
        starts = self.R.randint(0, sizes - sides + 1)
        flat = image.reshape(len(image), -1)
        result = flat.copy()
        ends = np.cumsum(sides.prod(axis=1))
        for chunk in np.split(np.arange(self.num_blocks), np.searchsorted(ends, np.arange(_CHUNK, ends[-1], _CHUNK))):
            if len(chunk):
                block, places = _voxels_of(starts[chunk], sides[chunk], image.shape[1:])
                # numbers of blocks rise by 1, and what is added is less: sorting permutes within each block only
                order = np.argsort(block + self.R.random_sample(len(block)))
                result[:, places] = flat[:, places[order]]  # of repeated places the last one counts
        return result.reshape(image.shape)


class RandNonlinearIntensityd(_Corruptiond):
    """Map intensities by a random monotonic curve, rising or falling.

    Args:
        keys: Keys of the images.
        prob: Probability in [0, 1].
        invert_prob: Probability in [0, 1] that the curve falls: dark becomes bright.
        value_range: Values between which the curve runs; what lies outside is clipped. None: those of each image.
        allow_missing_keys: Whether a key may be missing.

    Source:
        Zhou et al. 2021, section 2.1: a cubic Bezier curve from (0, 0) to (1, 1), two control points drawn
        uniformly from the unit square; or the same from (0, 1) to (1, 0).
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.9,
        invert_prob: float = 0.5,
        value_range: ValueRange = (0.0, 1.0),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, value_range, allow_missing_keys)
        self.invert_prob = _checked_share("invert_prob", invert_prob)

    def corrupt(self, image: np.ndarray, low: float, high: float) -> np.ndarray:
        """Return the image with other intensities."""
        if high <= low:
            return image
        x, y = bezier_curve(self.R.random_sample((2, 2)))
        y = 1 - y if self.R.random_sample() < self.invert_prob else y
        values = np.interp((image - low) / (high - low), x, y)
        return (low + values * (high - low)).astype(image.dtype)


class RandPaintd(_Corruptiond):
    """Paint noise over some boxes of the image, or over everything but some boxes.

    Args:
        keys: Keys of the images.
        prob: Probability in [0, 1] of either.
        inside_share: Share in [0, 1] of in-painting (noise in up to five boxes, each side a sixth to a third of
            the patch) among what is painted; the rest is out-painting (noise outside of one to five boxes, each side
            three to four sevenths).
        value_range: Range of the noise, uniform and independent for each voxel; None: that of each image.
        max_boxes: Boxes at most.
        continue_prob: Probability of another box; out-painting always has the first.
        allow_missing_keys: Whether a key may be missing.

    Source:
        Zhou et al. 2021, sections 2.3 and 2.4. The paper's sides of out-painting: patch minus 3/7 to 4/7 of it.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.9,
        inside_share: float = 0.2,
        value_range: ValueRange = (0.0, 1.0),
        max_boxes: int = 5,
        continue_prob: float = 0.95,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, value_range, allow_missing_keys)
        self.inside_share = _checked_share("inside_share", inside_share)
        self.continue_prob = _checked_share("continue_prob", continue_prob)
        self.max_boxes = max_boxes

    def corrupt(self, image: np.ndarray, low: float, high: float) -> np.ndarray:
        """Return the painted image."""
        inside = self.R.random_sample() < self.inside_share
        sizes = np.array(image.shape[1:])
        painted = np.full(image.shape[1:], not inside)
        for number in range(self.max_boxes):
            if (inside or number) and self.R.random_sample() >= self.continue_prob:
                break
            smallest, largest = (sizes // 6, sizes // 3) if inside else (sizes - 4 * sizes // 7, sizes - 3 * sizes // 7)
            smallest = np.maximum(smallest, 1)
            sides = self.R.randint(smallest, np.maximum(largest, smallest) + 1)
            starts = self.R.randint(0, sizes - sides + 1)
            painted[tuple(slice(a, a + n) for a, n in zip(starts, sides, strict=True))] = inside
        image[:, painted] = self.R.uniform(low, high, (len(image), int(painted.sum())))
        return image


class RandMaskCubesd(_Corruptiond):
    """Blank a share of the cubes (2D: squares) of a regular grid.

    Args:
        keys: Keys of the images.
        prob: Probability in [0, 1].
        side: Voxels of a cube's side; those at the far border may be cut off.
        share: Share in [0, 1] of the cubes, rounded to a whole number of cubes.
        value_range: Its middle fills the cubes; None: the mean of each image.
        allow_missing_keys: Whether a key may be missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 1.0,
        side: int = 8,
        share: float = 0.6,
        value_range: ValueRange = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, value_range, allow_missing_keys)
        if side < 1:
            raise OptionError(f"side must be >= 1 voxel, got {side}")
        self.side = side
        self.share = _checked_share("share", share)

    def corrupt(self, image: np.ndarray, low: float, high: float) -> np.ndarray:
        """Return the image with blank cubes."""
        grid = [-(-size // self.side) for size in image.shape[1:]]
        count = int(np.prod(grid))
        mask = np.zeros(count, bool)
        mask[self.R.permutation(count)[: round(self.share * count)]] = True
        mask = mask.reshape(grid)
        for axis in range(len(grid)):
            mask = mask.repeat(self.side, axis)
        mask = mask[tuple(slice(size) for size in image.shape[1:])]
        image[:, mask] = image.mean() if self.value_range is None else (low + high) / 2
        return image


def bezier_curve(controls: np.ndarray, num_points: int = _CURVE_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Return points of a cubic Bezier curve from (0, 0) to (1, 1).

    Both coordinates never fall: with u, v in [0, 1], u + v - 1 <= uv <= sqrt(uv), which is what keeps the
    derivative of either from being negative.

    Args:
        controls: The two control points, shape (2, 2), each coordinate in [0, 1].
        num_points: Number of points, >= 2.

    Returns:
        Abscissae and ordinates, shape (num_points,) each.
    """
    t = np.linspace(0, 1, num_points)[:, None]
    curve = 3 * (1 - t) ** 2 * t * controls[0] + 3 * (1 - t) * t**2 * controls[1] + t**3
    return curve[:, 0], curve[:, 1]


def _voxels_of(starts: np.ndarray, sides: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of its box and the flat place in the image, for each voxel of each box in turn."""
    volumes = sides.prod(axis=1)
    block = np.repeat(np.arange(len(starts)), volumes)
    rest = np.arange(len(block)) - np.repeat(np.cumsum(volumes) - volumes, volumes)
    places, stride = np.zeros(len(block), np.int64), 1
    for axis in reversed(range(len(shape))):
        side = sides[block, axis]
        places += (starts[block, axis] + rest % side) * stride
        rest //= side
        stride *= shape[axis]
    return block, places


def _checked_share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise OptionError(f"{name} must be a number in [0, 1], got {value}")
    return float(value)
